/* Evaluation tasks as folders: read completely, or refused with the place named. */
#include "base/str.h"
#include "data/evalset.h"
#include "data/npy.h"
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

/* As in FER-2013: a class of several names has every template with every name. */
static void test_a_class_may_have_several_names(void **state)
{
    (void)state;
    struct mode_evalset e;
    char one[MODE_DIGEST_HEX], two[MODE_DIGEST_HEX];
    put_classification();
    assert_int_equal(mode_evalset_words_digest(task, one, &err), MODE_OK);
    put("classnames.txt", "cat\ntail wagger\tdog\tgood dog \ngrey  wolf\n");
    assert_int_equal(mode_evalset_words_digest(task, two, &err), MODE_OK);
    assert_string_not_equal(one, two);
    if (mode_evalset_open(&e, task, &err)) fail_msg("%s", err.text);
    assert_int_equal(e.n_classes, 3);
    assert_string_equal(e.classes[1], "tail wagger");
    static const char *const prompts[] = {"a photo of a tail wagger.", "tail wagger, or rather tail wagger",
                                          "a photo of a dog.",         "dog, or rather dog",
                                          "a photo of a good dog.",    "good dog, or rather good dog"};
    assert_int_equal(mode_evalset_n_prompts(&e, 0), 2);
    assert_int_equal(mode_evalset_n_prompts(&e, 1), 6);
    for (int i = 0; i < 6; i++) {
        char *p = mode_evalset_prompt(&e, i, 1);
        assert_string_equal(p, prompts[i]);
        free(p);
    }
    mode_evalset_close(&e);
    put("classnames.txt", "cat\ntail wagger\tdog\tbad dog \ngrey  wolf\n");
    assert_int_equal(mode_evalset_words_digest(task, one, &err), MODE_OK);
    assert_string_not_equal(one, two);
    put("classnames.txt", "cat\ndog\t\thound\ngrey  wolf\n");
    assert_int_equal(mode_evalset_open(&e, task, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "line 2 has two tabs in a row"));
    put_classification();
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

/* A NumPy file of such a list, as in a tar. */
static struct bytes npy(int version, const char *descr, const char *shape, const void *data, size_t size)
{
    const int prefix = version > 1 ? 12 : 10;
    char *dict = mode_xasprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    struct bytes b = {.size = 128 + size, .data = calloc(1, 128 + size)};
    assert_non_null(b.data);
    memcpy(b.data, "\x93NUMPY", 6);
    b.data[6] = (uint8_t)version;
    b.data[8] = (uint8_t)(128 - prefix);
    memset(b.data + prefix, ' ', (size_t)(128 - prefix));
    memcpy(b.data + prefix, dict, strlen(dict));
    b.data[127] = '\n';
    memcpy(b.data + 128, data, size);
    free(dict);
    return b;
}

static void test_flags_of_every_type(void **state)
{
    (void)state;
    static const int8_t i1[] = {0, 1, 1};
    static const int64_t i8[] = {0, 1, 1}, two[] = {0, 1, 2}, minus[] = {0, 1, -1};
    static const float f4[] = {0, 1, 1}, half[] = {0, 1, 0.5f};
    static const double f8[] = {0, 1, 1};
    static const uint8_t f2[] = {0, 0, 0, 0x3c, 0, 0x3c}, big[] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1};
    static const struct {
        const char *descr, *shape;
        const void *data;
        size_t size;
        int version;
        const char *refused;
    } c[] = {{"|b1", "(3,)", i1, 3, 1, NULL},
             {"|u1", "(3,)", i1, 3, 1, NULL},
             {"<i8", "(3,)", i8, 24, 1, NULL},
             {"<f2", "(3,)", f2, 6, 2, NULL},
             {"<f4", "(3,)", f4, 12, 3, NULL},
             {"<f8", "(3,)", f8, 24, 1, NULL},
             {">u4", "(3,)", big, 12, 1, NULL},
             {"<i8", "(3,)", two, 24, 1, "label 2 is neither 0 nor 1"},
             {"<i8", "(3,)", minus, 24, 1, "label 2 is neither 0 nor 1"},
             {"<f4", "(3,)", half, 12, 1, "label 2 is neither 0 nor 1"},
             {"<i8", "(4,)", i8, 24, 1, "another length, expected a list of 3"},
             {"<i8", "(3, 1)", i8, 24, 1, "no list"},
             {"<i8", "()", i8, 24, 1, "no list"},
             {"<i8", "(3,)", i8, 23, 1, "is cut"},
             {"|O", "(3,)", i8, 24, 1, "neither bool nor integers nor floats"},
             {"<i8", "(3,)", i8, 24, 9, "not a NumPy file"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        int32_t out[3] = {7, 7, 7};
        struct bytes b = npy(c[i].version, c[i].descr, c[i].shape, c[i].data, c[i].size);
        enum mode_status st = mode_npy_read_flags(out, 3, b.data, b.size, "it", &err);
        if (!c[i].refused && (st || out[0] != 0 || out[1] != 1 || out[2] != 1))
            fail_msg("%s: %s", c[i].descr, err.text);
        if (c[i].refused && (st != MODE_E_FORMAT || !strstr(err.text, c[i].refused)))
            fail_msg("\"%s\" lacks \"%s\"", err.text, c[i].refused);
        for (size_t n = 0; n < 128; n++) /* truncated anywhere: refused, without reading past the end */
            assert_int_equal(mode_npy_read_flags(out, 3, b.data, n, "it", &err), MODE_E_FORMAT);
        free(b.data);
    }
}

static void test_multilabel(void **state)
{
    (void)state;
    static const uint8_t labels[2][3] = {{1, 0, 1}, {0, 0, 0}};
    struct mode_evalset e;
    struct mode_tar_writer *w;
    char words[MODE_DIGEST_HEX], one[MODE_DIGEST_HEX], *path = mode_xasprintf("%s/test/0.tar", task), name[32];
    put("dataset_type.txt", "multilabel\n");
    put("classnames.txt", "cat\ndog\nwolf\n");
    put("zeroshot_classification_templates.txt", "a photo of a {c}.\n");
    put("test/nshards.txt", "1");
    assert_int_equal(mode_tar_writer_open(&w, path, &err), MODE_OK);
    for (int i = 0; i < 2; i++) {
        struct bytes b = npy(1, "|u1", "(3,)", labels[i], 3);
        snprintf(name, sizeof name, "s%07d.jpg", i);
        assert_int_equal(mode_tar_writer_add(w, name, jpeg.data, jpeg.size, &err), MODE_OK);
        snprintf(name, sizeof name, "s%07d.npy", i);
        assert_int_equal(mode_tar_writer_add(w, name, b.data, b.size, &err), MODE_OK);
        free(b.data);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    if (mode_evalset_open(&e, task, &err)) fail_msg("%s", err.text);
    assert_int_equal(e.kind, MODE_TASK_MULTILABEL);
    assert_int_equal(e.n_images, 2);
    static const int32_t want[] = {1, 0, 1, 0, 0, 0};
    assert_memory_equal(e.label, want, sizeof want);
    mode_evalset_close(&e);
    assert_int_equal(mode_evalset_words_digest(task, words, &err), MODE_OK);
    put("classnames.txt", "cat\ndog\n"); /* three labels, two classes */
    assert_int_equal(mode_evalset_open(&e, task, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "s0000000: the labels are a list of another length, expected a list of 2"));
    put("classnames.txt", "cat\ndog\nwolf\n");
    put_tar(0, "cls", "0", "2");
    assert_int_equal(mode_evalset_open(&e, task, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "no npy"));
    put("dataset_type.txt", "classification\n");
    assert_int_equal(mode_evalset_words_digest(task, one, &err), MODE_OK); /* the same words, another question */
    assert_string_not_equal(words, one);
    free(path);
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
    put("dataset_type.txt", "captioning");
    refused(MODE_E_FORMAT, "task type \"captioning\", expected classification, multilabel or retrieval");
    put_classification();
    char *path = mode_path_join(task, "test/1.tar");
    assert_int_equal(truncate(path, 1024), 0);
    free(path);
    refused(MODE_E_FORMAT, "the tar is cut short");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classification),
        cmocka_unit_test(test_a_class_may_have_several_names),
        cmocka_unit_test(test_retrieval),
        cmocka_unit_test(test_flags_of_every_type),
        cmocka_unit_test(test_multilabel),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_what_is_not_whole_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
