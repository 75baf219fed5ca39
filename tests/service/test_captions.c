/* The work function of captions, as the worker calls it: a packed request in; captions.bin, and counts that add up,
 * out. */
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "captions.h"
#include "data/captions.h"
#include "data/tar.h"
#include "held_outputs.h"
#include "msg/worker.h"
#include "picture_fixture.h"
#include "proto/captions.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-captions-service-XXXXXX";
static char *tar, *out, *result;
static struct mode_error err;

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    mode_log_set_level(MODE_LOG_ERROR);
    tar = mode_path_join(dir, "0.tar");
    out = mode_path_join(dir, "out");
    result = mode_path_join(out, "captions.bin");
    assert_int_equal(mode_dir_make(out, &err), MODE_OK);
    struct bytes jpeg = fixture_jpeg(30, 20, 3, false, 1);
    struct mode_tar_writer *w;
    assert_int_equal(mode_tar_writer_open(&w, tar, &err), MODE_OK);
    for (int i = 0; i < 10; i++) {
        char name[16];
        const char *text = i == 4 ? "{\"texts\": []}" : "{\"texts\": [[\"alt\", \"a\"], [\"alt\", \"b\"]]}";
        snprintf(name, sizeof name, "%d.json", i);
        assert_int_equal(mode_tar_writer_add(w, name, text, strlen(text), &err), MODE_OK);
        snprintf(name, sizeof name, "%d.jpeg", i);
        assert_int_equal(mode_tar_writer_add(w, name, jpeg.data, i == 7 ? 100 : jpeg.size, &err), MODE_OK);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    free(jpeg.data);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(tar);
    free(out);
    free(result);
    return mode_dir_remove(dir, NULL);
}

static enum mode_status work(struct mode_local_report *report, uint64_t size_change, uint64_t max_pixels)
{
    struct stat sb;
    char *keys[] = {(char *)(uintptr_t) "json:texts[]"}, name[] = "x/0.tar";
    Mode__CaptionsRequest q = MODE__CAPTIONS_REQUEST__INIT;
    assert_int_equal(stat(tar, &sb), 0);
    q.shard_path = tar;
    q.shard_size = (uint64_t)sb.st_size + size_change;
    q.shard_mtime_ns = (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec;
    q.shard_name = name;
    q.n_text_keys = 1;
    q.text_keys = keys;
    q.seed = 5;
    q.shard_index = 3;
    q.strict = 1;
    q.max_image_pixels = max_pixels;
    uint8_t packed[512];
    const size_t n = mode__captions_request__get_packed_size(&q);
    assert_true(n <= sizeof packed);
    mode__captions_request__pack(&q, packed);
    unlink(result);
    return mode_job_run_local(report, captions_work, packed, n, NULL, 0, out, &err);
}

static void test_a_shard(void **state)
{
    (void)state;
    struct mode_local_report report = {0};
    struct mode_captions c;
    if (work(&report, 0, 600)) fail_msg("%s", err.text);
    assert_int_equal(report.rows_in, 10);
    assert_int_equal(report.rows_out, 8);
    assert_int_equal(report.rejected, 2);
    assert_non_null(report.note);
    free(report.note);
    assert_int_equal(mode_captions_load(&c, result, &err), MODE_OK);
    assert_string_equal(c.shard_name, "x/0.tar");
    assert_int_equal(c.n_rows, 8);
    assert_int_equal(c.fate_count[MODE_FATE_EMPTY_CAPTION], 1);
    assert_int_equal(c.fate_count[MODE_FATE_BAD_IMAGE], 1);
    mode_captions_clear(&c);
}

/* Its pictures are fixed bytes, because encoders' versions differ. */
static void test_what_captions_makes_is_held_to_its_number(void **state)
{
    (void)state;
    static const unsigned char png[] = {
        0x89, 'P',  'N',  'G',  '\r', '\n', 0x1a, '\n', 0,    0,    0,    13,  'I',  'H',  'D',  'R',  0,
        0,    0,    1,    0,    0,    0,    1,    8,    0,    0,    0,    0,   0x3a, 0x7e, 0x9b, 0x55, 0,
        0,    0,    10,   'I',  'D',  'A',  'T',  0x78, 0xda, 0x63, 0x60, 0,   0,    0,    2,    0,    1,
        0xe5, 0x27, 0xde, 0xfc, 0,    0,    0,    0,    'I',  'E',  'N',  'D', 0xae, 0x42, 0x60, 0x82};
    struct mode_local_report report = {0};
    struct mode_tar_writer *w;
    struct mode_captions c;
    char *was = tar;
    tar = mode_path_join(dir, "held.tar");
    assert_int_equal(mode_tar_writer_open(&w, tar, &err), MODE_OK);
    for (int i = 0; i < 12; i++) {
        char name[16];
        const char *text =
            i == 4   ? "{\"texts\": []}"
            : i == 5 ? "{\"texts\": [[\"alt\", \"  \"]]}"
                     : "{\"texts\": [[\"alt\", \"a \\u00e9t\\u00e9  sea\"], [\"alt\", \"b\"], [\"alt\", \"c\"]]}";
        snprintf(name, sizeof name, "%d.json", i);
        assert_int_equal(mode_tar_writer_add(w, name, text, strlen(text), &err), MODE_OK);
        snprintf(name, sizeof name, "%d.png", i);
        if (i != 6) assert_int_equal(mode_tar_writer_add(w, name, png, i == 7 ? 20 : sizeof png, &err), MODE_OK);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    if (work(&report, 0, 600)) fail_msg("%s", err.text);
    free(report.note);
    assert_int_equal(mode_captions_load(&c, result, &err), MODE_OK);
    assert_int_equal(c.n_rows, 8);
    mode_captions_clear(&c);
    held_file("captions", "captions.bin", result, dir, 0);
    free(tar);
    tar = was;
}

static void test_the_limit_of_the_request_holds(void **state)
{
    (void)state;
    struct mode_local_report report = {0};
    if (work(&report, 0, 599)) fail_msg("%s", err.text);
    assert_int_equal(report.rows_out, 0);
    assert_int_equal(report.rejected, 10);
    free(report.note);
}

static void test_a_changed_shard_leaves_nothing(void **state)
{
    (void)state;
    struct mode_local_report report = {0};
    assert_int_equal(work(&report, 1, 600), MODE_E_VALUE);
    assert_false(mode_file_exists(result));
    free(report.note);
}

static void test_nonsense_requests(void **state)
{
    (void)state;
    struct mode_local_report report = {0};
    assert_int_equal(mode_job_run_local(&report, captions_work, "\xff\xff\xff", 3, NULL, 0, out, &err), MODE_E_FORMAT);
    free(report.note);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_shard),
        cmocka_unit_test(test_what_captions_makes_is_held_to_its_number),
        cmocka_unit_test(test_the_limit_of_the_request_holds),
        cmocka_unit_test(test_a_changed_shard_leaves_nothing),
        cmocka_unit_test(test_nonsense_requests),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
