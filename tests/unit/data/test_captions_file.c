/* captions.bin: what is written is read back, and damaged files are refused. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/captions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-captions-XXXXXX";
static char *file;

static const struct mode_box boxes[] = {{1, 2, 3, 4}, {0, 0, 4, 5}};
static struct mode_sample samples[3] = {
    {.image_offset = 512,
     .image_size = 100,
     .width = 4,
     .height = 5,
     .caption_index = 1,
     .caption_count = 3,
     .fate = MODE_FATE_KEPT,
     .key = "a/000",
     .caption = "a caf\xc3\xa9"},
    {.fate = MODE_FATE_NO_IMAGE, .key = "a/001", .caption = ""},
    {.image_offset = 2048,
     .image_size = 1,
     .width = 1,
     .height = 1,
     .caption_count = 1,
     .fate = MODE_FATE_KEPT,
     .key = "a/002",
     .caption = "x"},
};

static struct mode_captions example(void)
{
    return (struct mode_captions){.shard_name = (char *)"0/0.tar",
                                  .shard_size = 4096,
                                  .data_size = 4096,
                                  .n_samples = 3,
                                  .samples = samples,
                                  .warn_duplicate_ext = 2,
                                  .warn_ignored_members = 5};
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    file = mode_path_join(dir, "captions.bin");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(file);
    return mode_dir_remove(dir, NULL);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_captions in = example(), c;
    char first[MODE_DIGEST_HEX], second[MODE_DIGEST_HEX];
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_digest_file(file, first, NULL, &err), MODE_OK);
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_digest_file(file, second, NULL, &err), MODE_OK);
    assert_string_equal(first, second);
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_OK);
    assert_string_equal(c.shard_name, "0/0.tar");
    assert_int_equal(c.n_samples, 3);
    assert_int_equal(c.n_rows, 2);
    assert_int_equal(c.fate_count[MODE_FATE_KEPT], 2);
    assert_int_equal(c.fate_count[MODE_FATE_NO_IMAGE], 1);
    assert_int_equal(c.warn_duplicate_ext, 2);
    assert_int_equal(c.warn_ignored_members, 5);
    assert_int_equal(c.shard_size, 4096);
    struct mode_sample sample = mode_captions_row(&c, 1), *s = &sample;
    assert_string_equal(s->key, "a/002");
    assert_int_equal(s->image_offset, 2048);
    sample = mode_captions_row(&c, 0);
    assert_string_equal(s->caption, "a caf\xc3\xa9");
    assert_int_equal(s->caption_index, 1);
    assert_int_equal(s->height, 5);
    mode_captions_clear(&c);
}

static void test_boxes(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_captions in = example(), c;
    char *data;
    size_t size;
    samples[2].boxes = boxes;
    samples[2].n_boxes = 2;
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    samples[2].boxes = NULL;
    samples[2].n_boxes = 0;
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_OK);
    assert_int_equal(c.n_boxes, 2);
    assert_int_equal(c.n_blurred, 1);
    assert_int_equal(mode_captions_row(&c, 0).n_boxes, 0);
    assert_int_equal(mode_captions_row(&c, 1).n_boxes, 2);
    assert_memory_equal(mode_captions_row(&c, 1).boxes, boxes, sizeof boxes);
    assert_string_equal(mode_captions_row(&c, 1).caption, "x");
    mode_captions_clear(&c);
    /* a file with boxes is refused by older readers; files without boxes are unchanged */
    assert_int_equal(mode_file_read(file, 0, &data, &size, &err), MODE_OK);
    assert_int_equal(data[8], 2);
    free(data);
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_file_read(file, 0, &data, &size, &err), MODE_OK);
    assert_int_equal(data[8], 1);
    free(data);
}

static void test_empty_shard(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_captions in = {.shard_name = (char *)"empty.tar"}, c;
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_OK);
    assert_int_equal(c.n_samples, 0);
    assert_int_equal(c.n_rows, 0);
    mode_captions_clear(&c);
}

static void test_why_a_shard_was_left_out_is_kept(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_captions in = example(), c;
    in.bad = "is not a tar";
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_E_FORMAT); /* it has samples */
    in.n_samples = 0;
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_OK);
    assert_string_equal(c.bad, "is not a tar");
    assert_string_equal(c.shard_name, "0/0.tar");
    mode_captions_clear(&c);
    in.bad = NULL;
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_OK);
    assert_null(c.bad);
    mode_captions_clear(&c);
}

static void test_every_flipped_bit_and_every_cut_is_noticed(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_captions in = example(), c;
    char *data;
    size_t size;
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_file_read(file, 0, &data, &size, &err), MODE_OK);
    for (size_t n = 0; n < size; n += 7) {
        FILE *f = fopen(file, "wb");
        assert_int_equal(fwrite(data, 1, n, f), n);
        fclose(f);
        assert_int_equal(mode_captions_load(&c, file, &err), MODE_E_FORMAT);
        assert_non_null(strstr(err.text, file));
    }
    for (size_t bit = 0; bit < size * 8; bit += 3) {
        data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
        FILE *f = fopen(file, "wb");
        assert_int_equal(fwrite(data, 1, size, f), size);
        fclose(f);
        assert_int_equal(mode_captions_load(&c, file, &err), MODE_E_FORMAT);
        data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
    }
    free(data);
}

static void put(char *at, size_t n, uint64_t v)
{
    for (size_t i = 0; i < n; i++) at[i] = (char)(v >> 8 * i);
}

/* A checksum proves that nothing changed since, not that it was valid: everything is checked. */
static void test_wrong_values_with_a_right_checksum_are_refused(void **state)
{
    (void)state;
    enum { RECORD = 128, SIZE = 64, COUNT = MODE_FATE_COUNT };
    static const struct {
        size_t at, n;
        uint64_t value;
        const char *why;
    } wrong[] = {
        {8, 4, 3, "captions file of version 3"},
        {12, 4, 4, "cannot hold 4 samples"},
        {12, 4, 2000001, "cannot hold 2000001 samples"},
        {24, 8, 0, "bytes cannot hold"},
        {32, 8, 0, "bytes cannot hold"},
        {92, 4, 3, "bytes cannot hold"},
        {80, 8, 1 << 20, "the shard's name lies outside"},
        {RECORD, 8, 3997, "the image of sample 0 lies at byte 3997, 100 bytes"},
        {RECORD, 8, UINT64_MAX, "the image of sample 0"},
        {RECORD + 8, 8, 3585, "the image of sample 0"},
        {RECORD + 8, 8, UINT64_MAX, "the image of sample 0"},
        {RECORD + 8, 8, 0, "sample 0 is kept but lacks"},
        {RECORD + 40, 4, 3, "sample 0 is kept but lacks"},
        {RECORD + 48, 4, COUNT, "sample 0 has fate"},
        {RECORD + 52, 4, 4, "the key of sample 0 lies outside"},
        {RECORD + 56, 4, 1, "the caption of sample 0 lies outside"},
        {RECORD + 56, 4, UINT32_MAX, "the caption of sample 0 lies outside"},
        {RECORD + 2 * SIZE + 56, 4, 2,
         "the caption of sample 2 lies outside"}, /* up to the last byte: where is its NUL? */
        {RECORD + 2 * SIZE + 60, 4, 1, "2 boxes, the samples have 1"},
        {RECORD + 2 * SIZE + 60, 4, 3, "sample 2 has 3 boxes, 2 are left of 2"},
    };
    struct mode_error err;
    struct mode_captions in = example(), c;
    char *data;
    size_t size;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const bool of_boxes = wrong[i].at == RECORD + 2 * SIZE + 60 || wrong[i].at == 92;
        samples[2].boxes = of_boxes ? boxes : NULL;
        samples[2].n_boxes = of_boxes ? 2 : 0;
        assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
        assert_int_equal(mode_file_read(file, 0, &data, &size, &err), MODE_OK);
        put(data + wrong[i].at, wrong[i].n, wrong[i].value);
        put(data + 16, 8, XXH3_64bits(data + 24, size - 24));
        assert_int_equal(mode_file_write_atomic(file, data, size, &err), MODE_OK);
        assert_int_equal(mode_captions_load(&c, file, &err), MODE_E_FORMAT);
        if (!strstr(err.text, wrong[i].why)) fail_msg("\"%s\" does not say \"%s\"", err.text, wrong[i].why);
        free(data);
    }
    samples[2].boxes = NULL;
    samples[2].n_boxes = 0;
    /* bytes behind the strings */
    assert_int_equal(mode_captions_save(&in, file, &err), MODE_OK);
    assert_int_equal(mode_file_read(file, 0, &data, &size, &err), MODE_OK);
    put(data + 24, 8, size + 1); /* there is a NUL after the file */
    put(data + 16, 8, XXH3_64bits(data + 24, size + 1 - 24));
    assert_int_equal(mode_file_write_atomic(file, data, size + 1, &err), MODE_OK);
    assert_int_equal(mode_captions_load(&c, file, &err), MODE_E_FORMAT);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_boxes),
        cmocka_unit_test(test_empty_shard),
        cmocka_unit_test(test_why_a_shard_was_left_out_is_kept),
        cmocka_unit_test(test_every_flipped_bit_and_every_cut_is_noticed),
        cmocka_unit_test(test_wrong_values_with_a_right_checksum_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
