/* Files are composed here, byte for byte, so that reader and writer are tested separately. */
#include "base/rng.h"
#include "base/str.h"
#include "data/npy.h"
#include "data/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/mode-safetensors-XXXXXX";

static void put(const char *header, uint64_t claimed, const void *data, size_t n)
{
    struct mode_str s = {0};
    struct mode_error err = {0};
    for (int i = 0; i < 8; i++) mode_str_add_char(&s, (char)(claimed >> (8 * i)));
    mode_str_add_cstr(&s, header);
    if (n) mode_str_add(&s, data, n);
    assert_int_equal(mode_file_write_atomic(path, s.data, s.len, &err), MODE_OK);
    mode_str_clear(&s);
}

static void refused_as(const char *header, size_t n_data, enum mode_status want, const char *words)
{
    static const char zeros[64];
    struct mode_safetensors f;
    struct mode_error err = {0};
    put(header, strlen(header), zeros, n_data);
    enum mode_status st = mode_safetensors_open(&f, path, &err);
    if (st != want || !strstr(err.text, words))
        fail_msg("%s: got %s: %s; expected \"%s\"", header, mode_status_name(st), err.text, words);
    assert_non_null(strstr(err.text, path));
    assert_null(f.tensors);
    assert_null(f.map.data);
}

static void refused(const char *header, size_t n_data, const char *words)
{
    refused_as(header, n_data, MODE_E_FORMAT, words);
}

static void test_a_hand_made_file_reads(void **state)
{
    (void)state;
    struct mode_safetensors f;
    struct mode_error err = {0};
    const char
        *header = "{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[4,12]},\"__metadata__\":{\"k\":\"v\"},"
                  "\"a\":{\"shape\":[],\"dtype\":\"F32\",\"data_offsets\":[0,4]},"
                  "\"none\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[4,4]}}   ";
    const unsigned char data[12] = {0, 0, 0x80, 0x3f, 7};
    put(header, strlen(header), data, sizeof data);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_OK);
    assert_int_equal(f.n_tensors, 3);
    assert_string_equal(f.tensors[0].name, "a");
    assert_string_equal(f.tensors[1].name, "none");
    assert_string_equal(f.tensors[2].name, "b");
    assert_string_equal(mode_safetensors_meta(&f, "k"), "v");
    assert_null(mode_safetensors_meta(&f, "x"));
    assert_null(mode_safetensors_find(&f, "x"));
    float one;
    memcpy(&one, mode_safetensors_find(&f, "a")->data, 4);
    assert_true(one == 1.0f);
    assert_int_equal(*(const unsigned char *)mode_safetensors_find(&f, "b")->data, 7);

    const struct mode_tensor *t;
    const int64_t dim[] = {0, 9}, other[] = {-1, 8};
    assert_int_equal(mode_safetensors_need(&f, "none", MODE_DTYPE_F32, 2, dim, &t, &err), MODE_OK);
    assert_int_equal(mode_safetensors_need(&f, "none", MODE_DTYPE_F32, 2, other, &t, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "[0, 9], expected [*, 8]"));
    assert_int_equal(mode_safetensors_need(&f, "none", MODE_DTYPE_F16, 2, dim, &t, &err), MODE_E_FORMAT);
    assert_int_equal(mode_safetensors_need(&f, "nine", MODE_DTYPE_F32, -1, NULL, &t, &err), MODE_E_FORMAT);
    mode_safetensors_close(&f);
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_malformed_files_are_refused(void **state)
{
    (void)state;
    refused("", 0, "does not start with");
    refused("[1]", 0, "does not start with");
    refused("{\"a\":", 0, "not JSON");
    refused("{} x", 0, "not JSON");
    refused("{}", 1, "trailing bytes");
    refused("{\"a\":3}", 0, "must hold dtype");
    refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 0, "must hold dtype");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4,4]") "}", 4, "must hold dtype");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0]") "}", 4, "must hold dtype");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4.0]") "}", 4, "must hold dtype");
    refused("{\"a\":" ENTRY("F31", "[1]", "[0,4]") "}", 4, "unknown dtype \"F31\"");
    refused("{\"a\":" ENTRY("F32", "1", "[0,4]") "}", 4, "shape must be");
    refused("{\"a\":" ENTRY("F32", "[-1]", "[0,4]") "}", 4, "not a count");
    refused("{\"a\":" ENTRY("F32", "[1.5]", "[0,4]") "}", 4, "not a count");
    refused("{\"a\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "at most 8 extents");
    refused("{\"a\":" ENTRY("F32", "[2]", "[0,4]") "}", 4, "takes 8 bytes, its data_offsets span 4");
    refused("{\"a\":" ENTRY("F32", "[1]", "[4,0]") "}", 4, "do not lie");
    refused("{\"a\":" ENTRY("F32", "[1]", "[-4,0]") "}", 4, "do not lie");
    refused("{\"a\":" ENTRY("F32", "[2]", "[0,8]") "}", 4, "truncated");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,9223372036854775807]") "}", 4, "do not lie");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,9223372036854775808]") "}", 4, "not JSON"); /* beyond 64 bits */
    /* products that wrap to the size claimed */
    refused("{\"a\":" ENTRY("F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "overflows");
    refused("{\"a\":" ENTRY("U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows");
    /* geometry */
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", 8, "not JSON");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "overlap");
    refused("{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[2]", "[4,12]") "}", 12, "overlap");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[8,12]") "}", 12, "hole");
    refused("{\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", 8, "hole");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"z\":" ENTRY("F32", "[0]", "[2,2]") "}", 4, "overlap");
    refused("{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 5, "trailing bytes");
    /* metadata */
    refused("{\"__metadata__\":[]}", 0, "not an object");
    refused("{\"__metadata__\":{\"k\":1}}", 0, "is not a string");
    refused("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "not JSON");
}

static void test_bad_lengths_are_refused(void **state)
{
    (void)state;
    struct mode_safetensors f;
    struct mode_error err = {0};
    assert_int_equal(mode_file_write_atomic(path, "", 0, &err), MODE_OK);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_E_FORMAT);
    assert_int_equal(mode_file_write_atomic(path, "\2\0\0\0\0\0\0", 7, &err), MODE_OK);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_E_FORMAT);
    put("{}", 3, NULL, 0); /* one byte more than there is */
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "truncated"));
    put("{}", UINT64_MAX, NULL, 0);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_E_FORMAT);
    put("{}", (16 << 20) + 1, NULL, 0);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "at most"));
    const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert_int_equal(mode_file_write_atomic(path, lfs, sizeof lfs - 1, &err), MODE_OK);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "git lfs pull"));
    assert_int_equal(mode_safetensors_open(&f, "/nonexistent/x.safetensors", &err), MODE_E_NOINPUT);
}

static void test_header_caps_hold_at_the_limit_and_past_it(void **state)
{
    (void)state;
    struct mode_safetensors f;
    struct mode_error err = {0};
    for (int past = 0; past < 2; past++) {
        struct mode_str s = {0};
        mode_str_add_char(&s, '{');
        for (int i = 0; i < 100000 + past; i++)
            mode_str_printf(&s, "%s\"%d\":" ENTRY("U8", "[1]", "[%d,%d]"), i ? "," : "", i, i, i + 1);
        mode_str_add_char(&s, '}');
        char *zeros = calloc(1, 100001);
        put(s.data, s.len, zeros, (size_t)(100000 + past));
        free(zeros);
        assert_int_equal(mode_safetensors_open(&f, path, &err), past ? MODE_E_VALUE : MODE_OK);
        mode_safetensors_close(&f);
        mode_str_clear(&s);
    }
    struct mode_str s = {0}; /* exactly 16 MiB of header: legal, if blank */
    mode_str_add_cstr(&s, "{}");
    while (s.len < (size_t)16 << 20)
        mode_str_add(&s, "                                                              ",
                     62 < (16u << 20) - s.len ? 62 : (16u << 20) - s.len);
    put(s.data, s.len, NULL, 0);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_OK);
    mode_safetensors_close(&f);
    mode_str_clear(&s);
}

static void test_what_is_written_reads_back_and_is_deterministic(void **state)
{
    (void)state;
    struct mode_safetensors f;
    struct mode_error err = {0};
    float x[6] = {1, 2, 3, 4, 5, 6};
    int64_t y[2] = {-1, INT64_MAX};
    unsigned char z[3] = {1, 2, 3};
    struct mode_tensor t[4] = {mode_tensor_2d(x, MODE_DTYPE_F32, 2, 3), mode_tensor_1d(y, MODE_DTYPE_I64, 2),
                               mode_tensor_1d(z, MODE_DTYPE_U8, 3), mode_tensor_2d(NULL, MODE_DTYPE_F32, 0, 5)};
    const char *names[] = {"x", "y \"quoted\" \xc3\xa9", "z", "empty"};
    for (int i = 0; i < 4; i++) t[i].name = names[i];
    char k1[] = "encoder_id", v1[] = "bert:0", k2[] = "line", v2[] = "a\nb";
    struct mode_meta meta[2] = {{k1, v1}, {k2, v2}};
    char first[MODE_DIGEST_HEX], second[MODE_DIGEST_HEX];
    assert_int_equal(mode_safetensors_write(path, t, 4, meta, 2, &err), MODE_OK);
    assert_int_equal(mode_digest_file(path, first, NULL, &err), MODE_OK);
    assert_int_equal(mode_safetensors_write(path, t, 4, meta, 2, &err), MODE_OK);
    assert_int_equal(mode_digest_file(path, second, NULL, &err), MODE_OK);
    assert_string_equal(first, second);

    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_OK);
    assert_int_equal(f.n_tensors, 4);
    for (int i = 0; i < 4; i++) {
        const struct mode_tensor *r = &f.tensors[i];
        assert_string_equal(r->name, names[i]);
        assert_int_equal(r->dtype, t[i].dtype);
        assert_int_equal(r->n_dims, t[i].n_dims);
        assert_memory_equal(r->dim, t[i].dim, sizeof r->dim);
        if (mode_tensor_bytes(r)) assert_memory_equal(r->data, t[i].data, mode_tensor_bytes(r));
    }
    assert_int_equal((uintptr_t)f.tensors[0].data % 64, 0);
    assert_string_equal(mode_safetensors_meta(&f, "line"), "a\nb");
    mode_safetensors_close(&f);

    assert_int_equal(mode_safetensors_write(path, t, 0, NULL, 0, &err), MODE_OK);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_OK);
    assert_int_equal(f.n_tensors, 0);
    mode_safetensors_close(&f);

    t[1].name = "x"; /* twice */
    assert_int_equal(mode_safetensors_write(path, t, 2, NULL, 0, &err), MODE_E_VALUE);
    t[1].name = "\xff";
    assert_int_equal(mode_safetensors_write(path, t, 2, NULL, 0, &err), MODE_E_VALUE);
    t[1].name = "__metadata__";
    assert_int_equal(mode_safetensors_write(path, t, 2, NULL, 0, &err), MODE_E_VALUE);
    t[1].name = NULL;
    assert_int_equal(mode_safetensors_write(path, t, 2, NULL, 0, &err), MODE_E_VALUE);
}

/* Damage of every kind: a file that opens must be readable to its last byte, one that does not must say why. */
static void test_damaged_files_never_lead_astray(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_rng rng = mode_rng_for(2, MODE_RNG_TEST, 0, 0);
    float x[6] = {1, 2, 3, 4, 5, 6};
    struct mode_tensor t[2] = {mode_tensor_2d(x, MODE_DTYPE_F32, 2, 3), mode_tensor_1d(x, MODE_DTYPE_I16, 3)};
    t[0].name = "x";
    t[1].name = "y";
    char k[] = "k", v[] = "v", *data;
    struct mode_meta meta = {k, v};
    size_t size;
    int opened = 0;
    assert_int_equal(mode_safetensors_write(path, t, 2, &meta, 1, &err), MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &data, &size, &err), MODE_OK);
    for (int round = 0; round < 3000; round++) {
        char *damaged = malloc(size);
        memcpy(damaged, data, size);
        for (int n = 1 + (int)mode_rng_below(&rng, 3); n > 0; n--) {
            static const char useful[] = "0123456789,:[]{}\"FIU ";
            size_t at = mode_rng_below(&rng, 160);
            damaged[at] = round % 2 ? useful[mode_rng_below(&rng, sizeof useful - 1)] : (char)mode_rng_u32(&rng);
        }
        FILE *f = fopen(path, "wb"); /* without the fsync of a proper write */
        assert_int_equal(fwrite(damaged, 1, round % 5 ? size : mode_rng_below(&rng, size), f) <= size, true);
        fclose(f);
        free(damaged);
        struct mode_safetensors s;
        err.text[0] = '\0';
        if (mode_safetensors_open(&s, path, &err)) {
            assert_true(err.text[0] != '\0');
            continue;
        }
        unsigned sum = 0;
        for (size_t i = 0; i < s.n_tensors; i++)
            for (size_t b = 0; b < mode_tensor_bytes(&s.tensors[i]); b++)
                sum += ((const unsigned char *)s.tensors[i].data)[b];
        assert_true(sum < 1u << 20);
        opened++;
        mode_safetensors_close(&s);
    }
    free(data);
    assert_true(opened > 0 && opened < 3000);
}

static void test_npy_holds_numpys_header(void **state)
{
    (void)state;
    struct mode_error err = {0};
    float x[6] = {1, 2, 3, 4, 5, 6};
    struct mode_tensor t = mode_tensor_2d(x, MODE_DTYPE_F32, 2, 3);
    char *data;
    size_t size;
    assert_int_equal(mode_npy_write(path, &t, &err), MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &data, &size, &err), MODE_OK);
    assert_int_equal(size, 128 + 24);
    assert_memory_equal(data, "\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  ", 71);
    assert_int_equal(data[127], '\n');
    assert_memory_equal(data + 128, x, 24);
    free(data);
    t = mode_tensor_1d(x, MODE_DTYPE_I32, 6);
    assert_int_equal(mode_npy_write(path, &t, &err), MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &data, &size, &err), MODE_OK);
    assert_non_null(strstr(data + 10, "'<i4', 'fortran_order': False, 'shape': (6,), }"));
    free(data);
    t.dtype = MODE_DTYPE_BF16;
    assert_int_equal(mode_npy_write(path, &t, &err), MODE_E_VALUE);
}

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hand_made_file_reads),
        cmocka_unit_test(test_malformed_files_are_refused),
        cmocka_unit_test(test_bad_lengths_are_refused),
        cmocka_unit_test(test_header_caps_hold_at_the_limit_and_past_it),
        cmocka_unit_test(test_what_is_written_reads_back_and_is_deterministic),
        cmocka_unit_test(test_damaged_files_never_lead_astray),
        cmocka_unit_test(test_npy_holds_numpys_header),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
