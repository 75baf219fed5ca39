/* Shards, captions and pictures with random byte changes: a reader refuses them or returns something consistent, and
 * makes no invalid memory access (run under the sanitizers). A few thousand fixed mutations. */
#include "base/file.h"
#include "base/str.h"
#include "data/captions.h"
#include "data/decode_here.h"
#include "data/samples.h"
#include "picture_fixture.h"
#include "pipeline/captions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-damaged-XXXXXX";
static char *tar_path, *captions_path, *hurt_path;
static struct mode_error err;

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    tar_path = mode_path_join(dir, "0.tar");
    captions_path = mode_path_join(dir, "captions.bin");
    hurt_path = mode_path_join(dir, "hurt");
    struct mode_tar_writer *w;
    assert_int_equal(mode_tar_writer_open(&w, tar_path, &err), MODE_OK);
    for (int i = 0; i < 4; i++) {
        char name[160];
        struct bytes j = fixture_jpeg(12, 12, i == 3 ? 4 : 3, i == 1, (uint64_t)i);
        /* the third has a name long enough for a pax header */
        snprintf(name, sizeof name, "%s%d.jpg",
                 i == 2 ? "a-very-long-folder-name-0123456789-0123456789-0123456789-"
                          "0123456789-0123456789-0123456789/"
                        : "",
                 i);
        assert_int_equal(mode_tar_writer_add(w, name, j.data, j.size, &err), MODE_OK);
        strcpy(strrchr(name, '.'), ".json");
        static const char text[] = "{\"texts\": [\"a\", [\"alt\", \"b \\u00e9\"], null], \"x\": [[[1.5e3, NaN]]]}";
        assert_int_equal(mode_tar_writer_add(w, name, text, strlen(text), &err), MODE_OK);
        free(j.data);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(tar_path);
    free(captions_path);
    free(hurt_path);
    return mode_dir_remove(dir, NULL);
}

static void write_plain(const char *path, const char *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
}

/* One to eight changes: a bit, a byte, a run of one value, a copied run, or the end cut off. */
static size_t mutate(char *data, size_t size, struct mode_rng *r)
{
    for (uint64_t n = 1 + mode_rng_below(r, 8); n > 0; n--) {
        const size_t at = (size_t)mode_rng_below(r, size), run = 1 + (size_t)mode_rng_below(r, 16);
        const size_t fits = run < size - at ? run : size - at;
        switch (mode_rng_below(r, 16)) {
        case 0: size = at + 1; break;
        case 1: memset(data + at, (int)mode_rng_below(r, 256), fits); break;
        case 2: memmove(data + at, data + mode_rng_below(r, size - fits + 1), fits); break;
        case 3: memset(data + at, '7', fits); break;
        case 4:
        case 5:
        case 6: data[at] = (char)mode_rng_below(r, 256); break;
        default: data[at] = (char)(data[at] ^ 1 << mode_rng_below(r, 8));
        }
    }
    return size;
}

/* Corrects the checksums of what look like headers, so that the damage passes them. */
static void mend_headers(char *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size; at += 512) {
        unsigned char *h = (unsigned char *)data + at;
        if (memcmp(h + 257, "ustar", 5) != 0) continue;
        unsigned sum = 0;
        memset(h + 148, ' ', 8);
        for (int i = 0; i < 512; i++) sum += h[i];
        snprintf((char *)h + 148, 7, "%06o", sum & 0777777u);
        h[155] = ' ';
    }
}

static void test_shards(void **state)
{
    (void)state;
    char *whole, *hurt;
    size_t size;
    int accepted = 0, refused = 0;
    struct mode_captions_options o = {.shard_path = hurt_path,
                                      .limits = {.max_pixels = 1 << 20, .max_side = 4096, .max_bytes = 1 << 20}};
    assert_int_equal(mode_text_keys_parse(&o.keys, NULL, 0, &err), MODE_OK);
    assert_int_equal(mode_file_read(tar_path, 0, &whole, &size, &err), MODE_OK);
    hurt = malloc(size);
    for (uint64_t k = 0; k < 1200; k++) {
        struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 1, k);
        memcpy(hurt, whole, size);
        const size_t n = mutate(hurt, size, &r);
        if (k % 4 != 0) mend_headers(hurt, n);
        write_plain(hurt_path, hurt, n);
        struct mode_tar_data d;
        if (mode_tar_data_open(&d, hurt_path, &err)) {
            refused++;
            continue;
        }
        struct mode_sample_list s;
        if (mode_samples_list(&s, &d, hurt_path, &err) == MODE_OK) {
            accepted++;
            for (size_t i = 0; i < s.n_members; i++)
                assert_true(s.members[i].offset <= d.size && s.members[i].size <= d.size - s.members[i].offset);
            if (k % 3 == 0) { /* the full step, which writes and reads back: slower */
                struct mode_captions c;
                assert_int_equal(mode_captions_extract(&c, captions_path, &o, &err), MODE_OK);
                uint64_t sum = 0;
                for (int f = 0; f < MODE_FATE_COUNT; f++) sum += c.fate_count[f];
                assert_int_equal(sum, s.n_groups);
                mode_captions_clear(&c);
            }
            mode_sample_list_clear(&s);
        } else
            refused++;
        mode_tar_data_close(&d);
    }
    assert_true(accepted > 200 && refused > 100);
    free(hurt);
    free(whole);
}

static void test_captions_files(void **state)
{
    (void)state;
    char *whole, *hurt;
    size_t size;
    int accepted = 0, refused = 0;
    struct mode_captions c;
    struct mode_captions_options o = {.shard_path = tar_path, .limits = MODE_IMAGE_LIMITS_DEFAULT};
    assert_int_equal(mode_text_keys_parse(&o.keys, NULL, 0, &err), MODE_OK);
    assert_int_equal(mode_captions_extract(&c, captions_path, &o, &err), MODE_OK);
    assert_int_equal(c.n_rows, 4);
    mode_captions_clear(&c);
    assert_int_equal(mode_file_read(captions_path, 0, &whole, &size, &err), MODE_OK);
    hurt = malloc(size);
    for (uint64_t k = 0; k < 4000; k++) {
        struct mode_rng r = mode_rng_for(12, MODE_RNG_TEST, 2, k);
        memcpy(hurt, whole, size);
        const size_t n = mutate(hurt, size, &r);
        if (n >= 128) { /* a correct checksum of wrong contents */
            const uint64_t sum = XXH3_64bits(hurt + 24, n - 24);
            for (int i = 0; i < 8; i++) hurt[16 + i] = (char)(sum >> (8 * i));
        }
        write_plain(hurt_path, hurt, n);
        if (mode_captions_load(&c, hurt_path, &err)) {
            assert_non_null(strstr(err.text, hurt_path));
            refused++;
            continue;
        }
        accepted++;
        size_t n_bytes = strlen(c.shard_name);
        for (uint32_t i = 0; i < c.n_samples; i++)
            n_bytes += strlen(mode_captions_sample(&c, i).key) + strlen(mode_captions_sample(&c, i).caption);
        assert_true(n_bytes <= n * c.n_samples + n); /* every string is within the file (and may be shared) */
        for (uint32_t i = 0; i < c.n_rows; i++) assert_int_equal(mode_captions_row(&c, i).fate, MODE_FATE_KEPT);
        mode_captions_clear(&c);
    }
    assert_true(accepted > 100 && refused > 1000);
    free(hurt);
    free(whole);
}

static void test_pictures(void **state)
{
    (void)state;
    struct bytes files[] = {fixture_jpeg(33, 17, 3, false, 1), fixture_jpeg(33, 17, 3, true, 2),
                            fixture_jpeg(17, 17, 4, false, 3), fixture_png(33, 17, 4)};
    const struct mode_image_limits limits = {.max_pixels = 1 << 18, .max_side = 4096, .max_bytes = 1 << 20};
    int accepted = 0, refused = 0;
    for (size_t f = 0; f < 4; f++) {
        char *hurt = malloc(files[f].size);
        for (uint64_t k = 0; k < 700; k++) {
            struct mode_rng r = mode_rng_for(13, MODE_RNG_TEST, f, k);
            struct mode_image im;
            memcpy(hurt, files[f].data, files[f].size);
            const size_t n = mutate(hurt, files[f].size, &r);
            uint8_t *exact = malloc(n);
            memcpy(exact, hurt, n);
            const enum mode_status st = mode__decode_here(&im, exact, n, &limits, &err);
            if (st == MODE_OK) {
                accepted++;
                assert_true((uint64_t)im.width * (uint64_t)im.height <= limits.max_pixels);
                mode_image_clear(&im);
            } else {
                assert_true(st == MODE_E_FORMAT || st == MODE_E_VALUE);
                assert_null(im.rgb);
                refused++;
            }
            free(exact);
        }
        free(hurt);
        free(files[f].data);
    }
    assert_true(accepted > 50 && refused > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_captions_files),
        cmocka_unit_test(test_pictures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
