/* Evaluation tasks as folders: read whole or refused with the place named. */
#include "base/str.h"
#include "data/evalset.h"
#include "picture_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-evalset-XXXXXX";
static char *task;
static struct bytes jpeg;
static struct mode_error err;

static void put(const char *name, const char *text)
{
    char *path = mode_path_join(task, name);
    assert_int_equal(mode_file_write_atomic(path, text, strlen(text), &err), MODE_OK);
    free(path);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    task = mode_path_join(dir, "task");
    char *test = mode_path_join(task, "test");
    assert_int_equal(mode_dir_make(test, &err), MODE_OK);
    free(test);
    jpeg = fixture_jpeg(16, 16, 3, false, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(task);
    free(jpeg.data);
    return mode_dir_remove(dir, NULL);
}

/* test/<i>.tar with two samples whose words are given; NULL: none */
static void put_tar(int i, const char *ext, const char *first, const char *second)
{
    const char *words[] = {first, second};
    struct mode_tar_writer *w;
    char *path = mode_xasprintf("%s/test/%d.tar", task, i), name[32];
    assert_int_equal(mode_tar_writer_open(&w, path, &err), MODE_OK);
    for (int k = 0; k < 2; k++) {
        if (words[k]) {
            snprintf(name, sizeof name, "s%07d.%s", 2 * i + k, ext);
            assert_int_equal(mode_tar_writer_add(w, name, words[k], strlen(words[k]), &err), MODE_OK);
        }
        snprintf(name, sizeof name, "s%07d.jpg", 2 * i + k);
        assert_int_equal(mode_tar_writer_add(w, name, jpeg.data, jpeg.size, &err), MODE_OK);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    free(path);
}

static void put_classification(void)
{
    char *type = mode_path_join(task, "dataset_type.txt");
    unlink(type);
    free(type);
    put("classnames.txt", "cat \n dog\ngrey  wolf\n");
    put("zeroshot_classification_templates.txt", "a photo of a {c}.\n{c}, or rather {c}\n");
    put("test/nshards.txt", "2\n");
    put_tar(0, "cls", "0", "2\n");
    put_tar(1, "cls", "1", "1");
}

static void test_classification(void **state)
{
    (void)state;
    struct mode_evalset e;
    put_classification();
    if (mode_evalset_open(&e, task, &err)) fail_msg("%s", err.text);
    assert_string_equal(e.name, "task");
    assert_int_equal(e.kind, MODE_TASK_CLASSIFICATION);
    assert_int_equal(e.n_classes, 3);
    assert_string_equal(e.classes[2], "grey  wolf");
    assert_int_equal(e.n_images, 4);
    static const int32_t labels[] = {0, 2, 1, 1};
    assert_memory_equal(e.label, labels, sizeof labels);
    assert_int_equal(e.image_size[3], jpeg.size);
    assert_memory_equal(e.image[3], jpeg.data, jpeg.size);
    assert_string_equal(e.image_key[2], "s0000002");
    char *p = mode_evalset_prompt(&e, 1, 1);
    assert_string_equal(p, "dog, or rather dog");
    free(p);
    mode_evalset_close(&e);
}

static void test_retrieval(void **state)
{
    (void)state;
    struct mode_evalset e;
    char a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX];
    put("dataset_type.txt", "retrieval\n");
    put("test/nshards.txt", "1");
    put_tar(0, "txt", "one\ntwo\\nlines\n\n", " three ");
    if (mode_evalset_open(&e, task, &err)) fail_msg("%s", err.text);
    assert_int_equal(e.kind, MODE_TASK_RETRIEVAL);
    assert_int_equal(e.n_texts, 3);
    assert_string_equal(e.texts[1], "two\nlines");
    assert_string_equal(e.texts[2], "three");
    static const int32_t of[] = {0, 0, 1};
    assert_memory_equal(e.image_of_text, of, sizeof of);
    assert_true(e.n_templates >= 1);
    mode_evalset_close(&e);
    assert_int_equal(mode_evalset_words_digest(task, a, &err), MODE_OK);
    put_tar(0, "txt", "one\ntwo\\nlines\n\n", " four ");
    assert_int_equal(mode_evalset_words_digest(task, b, &err), MODE_OK);
    assert_string_not_equal(a, b);
}

static void test_digests(void **state)
{
    (void)state;
    char all[MODE_DIGEST_HEX], words[MODE_DIGEST_HEX], again[MODE_DIGEST_HEX];
    put_classification();
    assert_int_equal(mode_evalset_digest(task, all, &err), MODE_OK);
    assert_int_equal(mode_evalset_words_digest(task, words, &err), MODE_OK);
    put_tar(1, "cls", "0", "1"); /* a label: not a word */
    assert_int_equal(mode_evalset_words_digest(task, again, &err), MODE_OK);
    assert_string_equal(words, again);
    assert_int_equal(mode_evalset_digest(task, again, &err), MODE_OK);
    assert_string_not_equal(all, again);
    put_classification();
    assert_int_equal(mode_evalset_digest(task, again, &err), MODE_OK);
    assert_string_equal(all, again);
    put("classnames.txt", "cat\ndog\nwolf\n");
    assert_int_equal(mode_evalset_words_digest(task, again, &err), MODE_OK);
    assert_string_not_equal(words, again);
}

static void refused(enum mode_status status, const char *hint)
{
    struct mode_evalset e;
    assert_int_equal(mode_evalset_open(&e, task, &err), status);
    if (!strstr(err.text, hint)) fail_msg("\"%s\" lacks \"%s\"", err.text, hint);
}

static void test_what_is_not_whole_is_refused(void **state)
{
    (void)state;
    put_classification();
    put_tar(1, "cls", "1", "3");
    refused(MODE_E_FORMAT, "s0000003");
    put_tar(1, "cls", "1", "x");
    refused(MODE_E_FORMAT, "s0000003");
    put_tar(1, "cls", "-1", "0");
    refused(MODE_E_FORMAT, "s0000002");
    put_tar(1, "cls", NULL, "0");
    refused(MODE_E_FORMAT, "no cls");
    put_classification();
    put("classnames.txt", "cat\n\ndog\n");
    refused(MODE_E_FORMAT, "line 2 is blank");
    put_classification();
    put("zeroshot_classification_templates.txt", "a photo of {}\n");
    refused(MODE_E_FORMAT, "no {c}");
    put_classification();
    put("test/nshards.txt", "3");
    refused(MODE_E_NOINPUT, "2.tar");
    put("test/nshards.txt", "many");
    refused(MODE_E_FORMAT, "nshards");
    put_classification();
    put("dataset_type.txt", "multilabel");
    refused(MODE_E_FORMAT, "multilabel");
    put_classification();
    char *path = mode_path_join(task, "test/1.tar");
    assert_int_equal(truncate(path, 1024), 0);
    free(path);
    refused(MODE_E_FORMAT, "ends too early");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classification),
        cmocka_unit_test(test_retrieval),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_what_is_not_whole_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
