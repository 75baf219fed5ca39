/* Tars composed here, byte by byte, and made by libarchive: what is read, and what is refused and where. */
#include "base/file.h"
#include "base/str.h"
#include "data/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-tar-XXXXXX";
static char *path;
static struct mode_str tar;
static struct mode_error err;

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    path = mode_path_join(dir, "t.tar");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(path);
    mode_str_clear(&tar);
    return mode_dir_remove(dir, NULL);
}

/* size: the 12 bytes of the field; NULL: octal of n. Data is n times 'd'. */
static void add(const char *name, char type, const char *size, size_t n)
{
    char h[512] = {0};
    unsigned sum = 0;
    memcpy(h, name, strnlen(name, 100));
    snprintf(h + 124, 12, "%011o", (unsigned)n);
    if (size) memcpy(h + 124, size, 12);
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    for (int i = 0; i < 512; i++) sum += (unsigned char)h[i];
    snprintf(h + 148, 7, "%06o", sum & 0777777u);
    mode_str_add(&tar, h, sizeof h);
    for (size_t i = 0; i < n; i++) mode_str_add_char(&tar, 'd');
    while (tar.len % 512) mode_str_add_char(&tar, '\0');
}

/* An extension header with this text as its data. */
static void add_text(char type, const char *text, size_t n)
{
    add("ext", type, NULL, n);
    memcpy(tar.data + tar.len - (n + 511) / 512 * 512, text, n);
}

static void finish(void)
{
    for (int i = 0; i < 1024; i++) mode_str_add_char(&tar, '\0');
    assert_int_equal(mode_file_write_atomic(path, tar.data, tar.len, &err), MODE_OK);
}

struct found {
    int n;
    struct {
        char name[512];
        enum mode_tar_kind kind;
        uint64_t offset, size;
        bool whole;
    } m[16];
    bool cut;
    uint64_t cut_at, after;
};

static enum mode_status walk(struct found *f)
{
    struct mode_tar_data d;
    struct mode_tar_member m;
    bool got;
    *f = (struct found){0};
    enum mode_status st = mode_tar_data_open(&d, path, &err);
    if (st) return st;
    struct mode_tar t = mode_tar_walk(&d, path);
    while (!(st = mode_tar_next(&t, &m, &got, &err)) && got) {
        assert_true(f->n < 16);
        snprintf(f->m[f->n].name, sizeof f->m[0].name, "%s", m.name);
        f->m[f->n].kind = m.kind;
        f->m[f->n].offset = m.offset;
        f->m[f->n].size = m.size;
        f->m[f->n++].whole = m.whole;
    }
    f->cut = t.cut;
    f->cut_at = t.cut_at;
    f->after = t.after;
    mode_tar_clear(&t);
    mode_tar_data_close(&d);
    return st;
}

static void test_kinds_and_names(void **state)
{
    (void)state;
    struct found f;
    char long_name[300];
    memset(long_name, 'n', 299);
    memcpy(long_name + 290, "/a.txt", 7);
    mode_str_reset(&tar);
    add("folder/", '5', NULL, 0);
    add("folder/a.txt", '0', NULL, 5);
    add("old/", '\0', NULL, 0);
    add("link", '2', "00000000777\0", 0); /* a size in a link means nothing */
    add("hard", '1', NULL, 0);
    add("tty", '3', NULL, 0);
    add_text('L', long_name, 297);
    add("cut name", '0', NULL, 3);
    add_text('x', "30 mtime=1350244992.023960108\n16 path=caf\xc3\xa9.x\n", 46);
    add("plain", '0', NULL, 2);
    add_text('g', "18 comment=global\n", 18);
    add("after global", '7', NULL, 1);
    add_text('x', "22 GNU.sparse.major=1\n", 22);
    add("sparse", '0', NULL, 512);
    add("weird", 'Z', NULL, 700);
    finish();
    assert_int_equal(walk(&f), MODE_OK);
    const struct {
        const char *name;
        enum mode_tar_kind kind;
        uint64_t size;
    } want[] = {
        {"folder/", MODE_TAR_FOLDER, 0},  {"folder/a.txt", MODE_TAR_FILE, 5},  {"old/", MODE_TAR_FOLDER, 0},
        {"link", MODE_TAR_LINK, 0},       {"hard", MODE_TAR_LINK, 0},          {"tty", MODE_TAR_DEVICE, 0},
        {long_name, MODE_TAR_FILE, 3},    {"caf\xc3\xa9.x", MODE_TAR_FILE, 2}, {"after global", MODE_TAR_FILE, 1},
        {"sparse", MODE_TAR_SPARSE, 512}, {"weird", MODE_TAR_OTHER, 700}};
    assert_int_equal(f.n, sizeof want / sizeof *want);
    for (int i = 0; i < f.n; i++) {
        if (i != 6) assert_string_equal(f.m[i].name, want[i].name);
        assert_int_equal(f.m[i].kind, want[i].kind);
        assert_int_equal(f.m[i].size, want[i].size);
        assert_true(f.m[i].whole);
        for (uint64_t k = 0; k < f.m[i].size; k++) assert_int_equal(tar.data[f.m[i].offset + k], 'd');
    }
    assert_int_equal(strlen(f.m[6].name), 296);
    assert_false(f.cut);
    assert_int_equal(f.after, 0);
}

static void test_sizes(void **state)
{
    (void)state;
    struct found f;
    mode_str_reset(&tar);
    add("binary.a", '0', "\x80\0\0\0\0\0\0\0\0\0\0\x03", 3); /* base-256 */
    add_text('x', "10 size=4\n", 10);
    add("pax.a", '0', "00000000000\0", 4);
    finish();
    assert_int_equal(walk(&f), MODE_OK);
    assert_int_equal(f.n, 2);
    assert_int_equal(f.m[0].size, 3);
    assert_int_equal(f.m[1].size, 4);
    static const char *const bad[] = {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", /* negative */
                                      "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "0000x000000\0",
                                      "\x81\0\0\0\0\0\0\0\0\0\0\x01", "\xff\0\0\0\0\0\0\0\0\0\0\x01"};
    for (int i = 0; i < 5; i++) {
        mode_str_reset(&tar);
        add("good", '0', NULL, 1);
        add("bad", '0', bad[i], 0);
        finish();
        assert_int_equal(walk(&f), MODE_E_FORMAT);
        assert_non_null(strstr(err.text, "byte 1024"));
    }
    mode_str_reset(&tar); /* larger than the file: treated as truncated */
    add("good", '0', NULL, 1);
    add("vast", '0', "\x80\0\0\0\x7f\0\0\0\0\0\0\0", 9);
    finish();
    assert_int_equal(walk(&f), MODE_OK);
    assert_int_equal(f.n, 2);
    assert_false(f.m[1].whole);
    assert_true(f.cut);
    assert_int_equal(f.cut_at, 1024);
}

/* Sizes in extension headers are trusted up to a limit, and not beyond the end of the file. */
static void test_limits_of_headers(void **state)
{
    (void)state;
    struct found f;
    for (int over = 0; over < 2; over++) { /* a long link name, which is skipped */
        mode_str_reset(&tar);
        add("ext", 'K', NULL, ((size_t)1 << 20) + (size_t)over);
        add("a.x", '0', NULL, 1);
        finish();
        assert_int_equal(walk(&f), over ? MODE_E_FORMAT : MODE_OK);
        if (over) assert_non_null(strstr(err.text, "an extension header of more than 1 MiB at byte 0"));
    }
    for (int over = 0; over < 2; over++) {
        char *name = mode_xmalloc(MODE_TAR_MAX_NAME + 1);
        memset(name, 'n', MODE_TAR_MAX_NAME + 1);
        mode_str_reset(&tar);
        add_text('L', name, MODE_TAR_MAX_NAME + (size_t)over);
        add("a.x", '0', NULL, 1);
        finish();
        free(name);
        assert_int_equal(walk(&f), MODE_OK);
        assert_int_equal(f.m[0].kind, over ? MODE_TAR_OTHER : MODE_TAR_FILE);
    }
    mode_str_reset(&tar); /* a list of holes that would continue past the end of the file */
    add("holes.x", 'S', NULL, 0);
    tar.data[482] = 1;
    snprintf(tar.data + 148, 7, "%06lo", strtol(tar.data + 148, NULL, 8) + 1);
    assert_int_equal(mode_file_write_atomic(path, tar.data, tar.len, &err), MODE_OK);
    assert_int_equal(walk(&f), MODE_OK);
    assert_int_equal(f.n, 0);
    assert_true(f.cut);
}

static void test_what_follows_the_end_mark_is_noticed(void **state)
{
    (void)state;
    struct found f;
    mode_str_reset(&tar);
    add("a.x", '0', NULL, 1);
    finish();
    add("b.x", '0', NULL, 1); /* two concatenated tars */
    finish();
    assert_int_equal(walk(&f), MODE_OK);
    assert_int_equal(f.n, 1);
    assert_int_equal(f.after, 2048);
}

static void test_malformed_pax_headers(void **state)
{
    (void)state;
    static const char *const bad[] = {"5 a=b", "99 path=x\n", "x path=y\n", "9 pathxx\n", "10 size=x\n"};
    struct found f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mode_str_reset(&tar);
        add_text('x', bad[i], strlen(bad[i]));
        add("a.x", '0', NULL, 1);
        finish();
        assert_int_equal(walk(&f), MODE_E_FORMAT);
    }
}

static void compress_as(int (*filter)(struct archive *), const void *data, size_t size)
{
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    filter(a);
    archive_write_set_format_raw(a);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    archive_entry_set_filetype(e, AE_IFREG);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    assert_int_equal(archive_write_data(a, data, size), size);
    archive_entry_free(e);
    archive_write_free(a);
}

static void compress(const void *data, size_t size)
{
    compress_as(archive_write_add_filter_gzip, data, size);
}

/* Whether the file at path unpacks to the tar; an error must have a message. */
static bool unpacks_to_tar(bool *failed)
{
    struct mode_tar_data d;
    *failed = mode_tar_data_open(&d, path, &err) != MODE_OK;
    if (*failed) return false;
    const bool same = d.size == tar.len && memcmp(d.data, tar.data, tar.len) == 0;
    mode_tar_data_close(&d);
    return same;
}

static void test_damaged_compression_is_an_error(void **state)
{
    static const struct {
        int (*filter)(struct archive *);
        const char *name;
    } of[] = {{archive_write_add_filter_gzip, "gzip"},
              {archive_write_add_filter_xz, "xz"},
              {archive_write_add_filter_bzip2, "bzip2"}};
    bool failed;
    (void)state;
    mode_str_reset(&tar);
    for (int i = 0; i < 3; i++) add("a.x", '0', NULL, 100);
    finish();
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        char *packed, *bad;
        size_t size;
        compress_as(of[k].filter, tar.data, tar.len);
        assert_true(unpacks_to_tar(&failed));
        assert_int_equal(mode_file_read(path, 0, &packed, &size, &err), MODE_OK);
        bad = malloc(2 * size + 3);
        memcpy(bad, packed, size);
        for (size_t i = 0; i < size; i++) { /* damaged: an error, unless it is outside the data (a time, a name) */
            bad[i] ^= 4;
            assert_int_equal(mode_file_write_atomic(path, bad, size, &err), MODE_OK);
            if (!unpacks_to_tar(&failed) && !failed) fail_msg("%s: byte %zu", of[k].name, i);
            bad[i] ^= 4;
        }
        for (size_t n = 8; n < size; n++) { /* cut */
            assert_int_equal(mode_file_write_atomic(path, bad, n, &err), MODE_OK);
            if (unpacks_to_tar(&failed) || !failed) fail_msg("%s: cut at %zu of %zu", of[k].name, n, size);
            assert_non_null(strstr(err.text, of[k].name));
        }
        free(packed);
        free(bad);
    }
}

/* Concatenated gzip members, and trailing zeros, as tapes and parallel compressors write them. */
static void test_gzip_in_members(void **state)
{
    char *packed;
    size_t size;
    bool failed;
    (void)state;
    mode_str_reset(&tar);
    add("a.x", '0', NULL, 100);
    compress(tar.data, tar.len);
    assert_int_equal(mode_file_read(path, 0, &packed, &size, &err), MODE_OK);
    const size_t first = tar.len;
    finish();
    compress(tar.data + first, tar.len - first);
    char *rest;
    size_t rest_size;
    assert_int_equal(mode_file_read(path, 0, &rest, &rest_size, &err), MODE_OK);
    char *both = calloc(1, size + rest_size + 7);
    memcpy(both, packed, size);
    memcpy(both + size, rest, rest_size);
    assert_int_equal(mode_file_write_atomic(path, both, size + rest_size + 7, &err), MODE_OK);
    assert_true(unpacks_to_tar(&failed));
    both[size + rest_size + 3] = 'x';
    assert_int_equal(mode_file_write_atomic(path, both, size + rest_size + 7, &err), MODE_OK);
    assert_true(!unpacks_to_tar(&failed) && failed);
    free(packed);
    free(rest);
    free(both);
}

static void test_compressed(void **state)
{
    (void)state;
    struct found f;
    mode_str_reset(&tar);
    for (int i = 0; i < 3; i++) add("a.x", '0', NULL, 100);
    finish();
    compress(tar.data, tar.len);
    assert_int_equal(walk(&f), MODE_OK);
    assert_int_equal(f.n, 3);
    assert_int_equal(f.m[2].size, 100);
    compress("no tar at all", 13);
    assert_int_equal(walk(&f), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "unpacks to"));
    char *zeros = calloc(1, 64 << 20); /* a compression ratio above 100 */
    compress(zeros, 64 << 20);
    free(zeros);
    assert_int_equal(walk(&f), MODE_E_VALUE);
}

static void test_writer(void **state)
{
    (void)state;
    struct found f;
    struct mode_tar_writer *w;
    char name[MODE_TAR_MAX_NAME + 2];
    char hex[2][MODE_DIGEST_HEX];
    static const size_t lengths[] = {1, 99, 100, 101, 255, 992, 993, 994, 995, 4096};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(mode_tar_writer_open(&w, path, &err), MODE_OK);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            memset(name, 'a' + (int)i, lengths[i]);
            name[lengths[i]] = '\0';
            assert_int_equal(mode_tar_writer_add(w, name, "data", i % 5, &err), MODE_OK);
        }
        memset(name, 'x', sizeof name - 1);
        name[sizeof name - 1] = '\0';
        assert_int_equal(mode_tar_writer_add(w, name, "", 0, &err), MODE_E_VALUE);
        assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
        assert_null(w);
        assert_int_equal(mode_digest_file(path, hex[round], NULL, &err), MODE_OK);
    }
    assert_string_equal(hex[0], hex[1]);
    assert_int_equal(walk(&f), MODE_OK);
    assert_int_equal(f.n, sizeof lengths / sizeof *lengths);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_int_equal(strlen(f.m[i].name), lengths[i] < 511 ? lengths[i] : 511);
        assert_int_equal(f.m[i].name[0], 'a' + (int)i);
        assert_int_equal(f.m[i].size, i % 5);
    }
    /* aborted: nothing is left */
    char *other = mode_path_join(dir, "other.tar");
    assert_int_equal(mode_tar_writer_open(&w, other, &err), MODE_OK);
    mode_tar_writer_close(&w);
    assert_false(mode_file_exists(other));
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_and_names),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_limits_of_headers),
        cmocka_unit_test(test_what_follows_the_end_mark_is_noticed),
        cmocka_unit_test(test_malformed_pax_headers),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_damaged_compression_is_an_error),
        cmocka_unit_test(test_gzip_in_members),
        cmocka_unit_test(test_writer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
