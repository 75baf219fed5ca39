/* Thumbnails of the report. */
#include "picture_fixture.h"

#include "pipeline/corpus.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool fails;

/* Replaces the real one (--wrap, CMakeLists.txt): where it fails, the output buffer has grown several times. */
void __real_jpeg_finish_compress(j_compress_ptr c);
void __wrap_jpeg_finish_compress(j_compress_ptr c);

void __wrap_jpeg_finish_compress(j_compress_ptr c)
{
    if (fails) c->err->error_exit((j_common_ptr)c);
    __real_jpeg_finish_compress(c);
}

static void test_a_thumbnail_fits(void **state)
{
    struct bytes png = fixture_png(300, 200, 1);
    struct mode_corpus_picture p = {0};
    (void)state;
    assert_int_equal(mode_corpus_thumbnail(&p, png.data, png.size, NULL), MODE_OK);
    assert_int_equal(p.width, MODE_CORPUS_PICTURE_SIDE);
    assert_int_equal(p.height, 80);
    assert_true(p.jpeg_size > 4096); /* more than libjpeg's first buffer */
    free(p.jpeg);
    free(png.data);
}

/* Under AddressSanitizer its leak check decides: mallinfo2 counts nothing there. */
static void test_a_failure_frees_the_output(void **state)
{
    struct bytes png = fixture_png(300, 200, 1);
    struct mode_corpus_picture p = {0};
    struct mode_error err;
    size_t before = 0;
    (void)state;
    fails = true;
    for (int i = 0; i < 101; i++) {
        assert_int_equal(mode_corpus_thumbnail(&p, png.data, png.size, &err), MODE_E_MEMORY);
        assert_string_equal(err.text, "the JPEG encoder failed on a 120 x 80 picture");
        if (i == 0) before = mallinfo2().uordblks;
    }
    fails = false;
    assert_true(mallinfo2().uordblks < before + 65536); /* some stays in malloc's caches */
    assert_null(p.jpeg);
    free(png.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thumbnail_fits),
        cmocka_unit_test(test_a_failure_frees_the_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
