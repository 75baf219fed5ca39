/* Pictures and captions to shards, and back by the captions step. */
#include "base/file.h"
#include "base/str.h"
#include "data/dali_index.h"
#include "data/evalset.h"
#include "picture_fixture.h"
#include "pipeline/captions.h"
#include "pipeline/inspect.h"
#include "pipeline/pack.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-pack-XXXXXX";
static struct mode_error err;
static struct bytes jpeg, png;

static char *in_dir(const char *name)
{
    return mode_path_join(dir, name);
}

static void put(const char *name, const void *data, size_t size)
{
    char *path = in_dir(name);
    assert_int_equal(mode_file_write_atomic(path, data, size, &err), MODE_OK);
    free(path);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    jpeg = fixture_jpeg(20, 20, 3, false, 1);
    png = fixture_png(20, 20, 1);
    char *pics = in_dir("pics/sub");
    assert_int_equal(mode_dir_make(pics, &err), MODE_OK);
    free(pics);
    put("pics/p2.jpg", jpeg.data, jpeg.size);
    put("pics/p2.txt", "two", 3);
    put("pics/p10.jpg", png.data, png.size); /* wrong extension: packed by its content */
    put("pics/p10.json", "{\"caption\": \"ten\"}", 18);
    put("pics/sub/p1.png", png.data, png.size);
    put("pics/sub/p1.txt", "sub one", 7);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(jpeg.data);
    free(png.data);
    return mode_dir_remove(dir, NULL);
}

static enum mode_status pack(struct mode_pack_counts *n, const char *pairs, const char *out, uint32_t per_shard,
                             bool skip_bad)
{
    const struct mode_pack_options o = {.per_shard = per_shard, .skip_bad = skip_bad};
    return mode_pack(n, pairs, out, &o, &err);
}

static struct mode_captions captions_of(const char *tar)
{
    struct mode_captions c;
    char *path = in_dir(tar), *out = in_dir("captions.bin");
    struct mode_captions_options o = {.shard_path = path, .limits = MODE_IMAGE_LIMITS_DEFAULT, .strict = true};
    assert_int_equal(mode_text_keys_parse(&o.keys, NULL, 0, &err), MODE_OK);
    if (mode_captions_extract(&c, out, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(c.n_rows, c.n_samples);
    free(path);
    free(out);
    return c;
}

static void test_folder(void **state)
{
    (void)state;
    struct mode_pack_counts n;
    char *pics = in_dir("pics"), *out = in_dir("out-folder");
    if (pack(&n, pics, out, 2, false)) fail_msg("%s", err.text);
    assert_int_equal(n.pairs, 3);
    assert_int_equal(n.packed, 3);
    assert_int_equal(n.shards, 2);
    struct mode_captions c = captions_of("out-folder/00000.tar");
    assert_int_equal(c.n_rows, 2);
    assert_string_equal(mode_captions_sample(&c, 0).caption, "two");
    assert_string_equal(mode_captions_sample(&c, 1).caption, "ten");
    assert_int_equal(mode_captions_sample(&c, 1).image_size, png.size);
    mode_captions_clear(&c);
    c = captions_of("out-folder/00001.tar");
    assert_string_equal(mode_captions_sample(&c, 0).caption, "sub one");
    mode_captions_clear(&c);
    assert_int_equal(pack(&n, pics, out, 2, false), MODE_E_CREATE); /* not over an older set */
    free(pics);
    free(out);
}

static void test_list(void **state)
{
    (void)state;
    static const char list[] = "# picture\tcaptions\n"
                               "pics/p2.jpg\tone caption\n"
                               "\n"
                               "pics/p10.jpg\tfirst \"quoted\"\tsecond\r\n"
                               "pics/none.jpg\tno such file\n"
                               "pics/p2.txt\tno picture\n"
                               "pics/p2.jpg\n"
                               "pics/p2.jpg\tcaf\xe9\n";
    struct mode_pack_counts n;
    put("list.tsv", list, strlen(list));
    char *tsv = in_dir("list.tsv"), *out = in_dir("out-list");
    assert_int_equal(pack(&n, tsv, out, 1, false), MODE_E_NOINPUT);
    const char *named = strstr(err.text, "none.jpg"); /* named once */
    assert_true(named && !strstr(named + 1, "none.jpg"));
    assert_int_equal(n.shards, 2);
    assert_false(mode_file_exists(out)); /* two shards were complete; all are removed, and the folder */
    if (pack(&n, tsv, out, 100, true)) fail_msg("%s", err.text);
    assert_int_equal(n.pairs, 6);
    assert_int_equal(n.packed, 2);
    assert_int_equal(n.no_file, 1);
    assert_int_equal(n.not_an_image, 1);
    assert_int_equal(n.no_caption, 1);
    assert_int_equal(n.bad_text, 1);
    struct mode_captions c = captions_of("out-list/00000.tar");
    assert_int_equal(c.n_rows, 2);
    assert_string_equal(mode_captions_sample(&c, 0).caption, "one caption");
    assert_int_equal(mode_captions_sample(&c, 1).caption_count, 2);
    assert_string_equal(mode_captions_sample(&c, 1).caption,
                        mode_captions_sample(&c, 1).caption_index ? "second" : "first \"quoted\"");
    mode_captions_clear(&c);
    free(tsv);
    free(out);
}

/* Packs a list; returns the captions, joined with "|". *n: the counts. */
static char *captions_of_list(struct mode_pack_counts *n, const char *list, size_t size,
                              const struct mode_pairs_options *o, bool skip_bad)
{
    const struct mode_pack_options pack = {.per_shard = 100, .skip_bad = skip_bad, .list = *o};
    char *file = in_dir("list.csv"), *out = in_dir("out-csv");
    struct mode_str all = {0};
    assert_int_equal(mode_dir_remove(out, &err), MODE_OK);
    put("list.csv", list, size);
    if (mode_pack(n, file, out, &pack, &err)) fail_msg("%s", err.text);
    struct mode_captions c = captions_of("out-csv/00000.tar");
    for (uint32_t i = 0; i < c.n_rows; i++)
        mode_str_printf(&all, "%s%s", i ? "|" : "", mode_captions_sample(&c, i).caption);
    mode_captions_clear(&c);
    free(file);
    free(out);
    return all.data;
}

static void packs(const char *list, const struct mode_pairs_options *o, const char *captions)
{
    struct mode_pack_counts n;
    char *got = captions_of_list(&n, list, strlen(list), o, false);
    assert_string_equal(got, captions);
    assert_int_equal(n.pairs, n.packed);
    free(got);
}

/* Refused, even with skip_bad, with an error that contains both parts. */
static void refuses(const char *list, size_t size, const struct mode_pairs_options *o, const char *part,
                    const char *part2)
{
    struct mode_pack_counts n;
    char *file = in_dir("list.csv"), *out = in_dir("out-refused");
    put("list.csv", list, size);
    for (int skip_bad = 0; skip_bad < 2; skip_bad++) {
        const struct mode_pack_options pack = {.per_shard = 1, .skip_bad = skip_bad, .list = *o};
        assert_int_equal(mode_pack(&n, file, out, &pack, &err), MODE_E_FORMAT);
        if (!strstr(err.text, part) || !strstr(err.text, part2))
            fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err.text, part, part2);
        assert_false(mode_file_exists(out));
    }
    free(file);
    free(out);
}

#define P "pics/p2.jpg"

static void test_csv(void **state)
{
    (void)state;
    const struct mode_pairs_options plain = {0}, comma = {.separator = ','},
                                    named = {.img_key = "image", .caption_key = "text", .separator = ';'};
    /* open_clip's own defaults */
    packs("filepath\ttitle\n" P "\tone\n" P "\ttwo\n", &plain, "one|two");
    packs("\xef\xbb\xbf"
          "filepath\ttitle\r\n" P "\tone\r\n\r\n" P "\t#two",
          &plain, "one|#two");
    packs("# of us\n\nid\ttitle\tlicence\tfilepath\n7\tone\tCC0\t" P "\n", &plain, "one");
    /* quoted fields with separators, quotes and line ends; a quote inside an unquoted field is literal */
    packs("filepath,title\n" P ",\"a, \"\"b\"\"\nc\"\n\"" P "\",a 5\" pipe\n", &comma, "a, \"b\"\nc|a 5\" pipe");
    packs("filepath\ttitle\n" P "\t\"quoted\"\n", &plain, "quoted");
    packs(P "\t\"quoted\" and more\n", &plain, "\"quoted\" and more"); /* a plain list has no quoting */
    packs(P ",\"one\ntwo\"\n" P ",three\n", &comma, "one\ntwo|three");
    packs("text;image\none;" P "\n", &named, "one");
    packs("\"image\";\"text\"\n" P ";one\n", &named, "one");

    struct mode_pack_counts n;
    static const char odd[] = "filepath,title\n" P ",one\n" P "\n" P ",a,b\n" P ",\" \n\"\n" P ",caf\xe9\nnone.jpg,x\n";
    char *got = captions_of_list(&n, odd, strlen(odd), &comma, true);
    assert_string_equal(got, "one");
    assert_int_equal(n.pairs, 6);
    assert_int_equal(n.bad_text, 3);
    assert_int_equal(n.no_caption, 1);
    assert_int_equal(n.no_file, 1);
    free(got);
}

static void test_csv_that_cannot_be_understood(void **state)
{
    (void)state;
    const struct mode_pairs_options plain = {0}, comma = {.separator = ','}, named = {.img_key = "image"};
#define REFUSES(list, o, part, part2) refuses(list, sizeof list - 1, o, part, part2)
    REFUSES("filepath\tcaption\n" P "\tone\n", &plain, "line 1: expected a header", "\"filepath\", \"caption\"");
    REFUSES("filepath,title\n" P ",one\n", &plain, "line 1: expected a header", "--csv-separator ','");
    REFUSES("\n" P "\tone\n", &named, "line 2: expected a header", "\"image\" (picture)");
    REFUSES(P ",one,two\n", &comma, "got 3",
            "--csv-img-key and --csv-caption-key name the columns; without a header there must be two");
    REFUSES("filepath,title,title\n" P ",a,b\n", &comma, "line 1", "\"title\" twice");
    REFUSES("filepath\ttitle\ttitle\n" P "\ta\tb\n", &plain, "line 1", "\"title\" twice");
    REFUSES("filepath,title\n" P ",\"a\nb\"c\n", &comma, "list.csv, line 3: \"c\" after the quote", "field 2");
    REFUSES("filepath,title\n" P ",a\n" P ",\"b\n" P ",c\n", &comma, "line 3: the quote that begins field 2",
            "never closed");
    REFUSES("filepath,title\n" P ",a\0b\n", &comma, "line 2: holds a NUL", "UTF-8");
    REFUSES(P "\ta\n" P "\ta\0b\n", &plain, "line 2: holds a NUL", "UTF-8");

    /* a header with other names is taken for a pair: the error says so */
    struct mode_pack_counts n;
    char *file = in_dir("list.csv"), *out = in_dir("out-refused");
    put("list.csv", "image\tcaption\n", 14);
    assert_int_equal(pack(&n, file, out, 1, false), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "line 1, which is not a header with the columns \"filepath\" and \"title\""));
    free(file);
    free(out);
}

/* A truncated picture (no end marker) is a bad pair; leftovers of a killed attempt do not stop the next one. */
static void test_cut_pictures(void **state)
{
    (void)state;
    static const char list[] = "whole.jpg\ta\ncut.jpg\tb\ncut.png\tc\nwhole.jpg\td\n";
    struct mode_pack_counts n;
    put("whole.jpg", jpeg.data, jpeg.size);
    put("cut.jpg", jpeg.data, jpeg.size - 40);
    put("cut.png", png.data, png.size - 30);
    put("cut.tsv", list, strlen(list));
    char *tsv = in_dir("cut.tsv"), *out = in_dir("out-cut"), *left = in_dir("out-cut/.pack"),
         *tar = in_dir("out-cut/00000.tar");
    assert_int_equal(mode_dir_make(left, &err), MODE_OK);
    put("out-cut/.pack/00000.tar", "half", 4);
    assert_int_equal(pack(&n, tsv, out, 1, false), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "cut.jpg: the picture is cut"));
    assert_true(mode_file_exists(out) && !mode_file_exists(left) && !mode_file_exists(tar));
    if (pack(&n, tsv, out, 10, true)) fail_msg("%s", err.text);
    assert_int_equal(n.cut_image, 2);
    assert_int_equal(n.packed, 2);
    assert_true(!mode_file_exists(left) && mode_file_exists(tar));
    free(tsv), free(out), free(left), free(tar);
}

static void put_in(const char *folder, const char *name, const void *data, size_t size)
{
    char *sub = in_dir(folder), *path = mode_xasprintf("%s/%s", folder, name);
    assert_int_equal(mode_dir_make(sub, &err), MODE_OK);
    put(path, data, size);
    free(sub);
    free(path);
}

static void put_words(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

static void task_refused(const struct mode_pack_task *t, bool skip_bad, enum mode_status st, const char *hint)
{
    struct mode_pack_counts n;
    char *out = in_dir("no-task");
    assert_int_equal(mode_pack_task(&n, t, out, 10, skip_bad, &err), st);
    if (!strstr(err.text, hint)) fail_msg("\"%s\" lacks \"%s\"", err.text, hint);
    if (strstr(err.text, ".pack")) fail_msg("\"%s\" names a place of its own", err.text);
    assert_false(mode_file_exists(out));
    free(out);
}

static void assert_text(const char *name, const char *want)
{
    char *path = in_dir(name), *text;
    if (mode_file_read(path, 0, &text, NULL, &err)) fail_msg("%s", err.text);
    assert_string_equal(text, want);
    free(text);
    free(path);
}

static void test_class_folders_become_a_task(void **state)
{
    (void)state;
    struct mode_pack_counts n;
    struct mode_evalset e;
    char *source = in_dir("classes"), *out = in_dir("task-c"), *again = in_dir("task-d"), *names = in_dir("names.txt"),
         *templates = in_dir("templates.txt");
    struct mode_pack_task t = {.source = source};
    char a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX];
    assert_int_equal(mode_dir_make(source, &err), MODE_OK);
    task_refused(&t, true, MODE_E_NOINPUT, "classes: holds no folder; expected one per class");
    put_in("classes/grey_wolf", "b.JPEG", jpeg.data, jpeg.size);
    put_in("classes/grey_wolf/more", "a.png", png.data, png.size);
    put_in("classes/Zebra", "1.jpg", jpeg.data, jpeg.size);
    put_in("classes/.hidden", "1.jpg", jpeg.data, jpeg.size);
    put_in("classes", "list.csv", "x", 1);
    if (mode_pack_task(&n, &t, out, 2, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(n.packed, 3);
    assert_int_equal(n.shards, 2);
    assert_text("task-c/classnames.txt", "Zebra\ngrey wolf\n"); /* by bytes: capitals first */
    assert_text("task-c/zeroshot_classification_templates.txt", "a photo of a {c}.\n");
    assert_text("task-c/dataset_type.txt", "classification\n");
    assert_text("task-c/test/nshards.txt", "2\n");
    if (mode_evalset_open(&e, out, &err)) fail_msg("%s", err.text);
    static const int32_t labels[] = {0, 1, 1};
    assert_int_equal(e.n_images, 3);
    assert_memory_equal(e.label, labels, sizeof labels);
    assert_string_equal(e.image_key[2], "s0000002");
    assert_int_equal(e.image_size[0], jpeg.size);
    assert_int_equal(e.image_size[2], png.size); /* after b.JPEG: of the folder below */
    mode_evalset_close(&e);
    if (mode_pack_task(&n, &t, again, 2, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_evalset_digest(out, a, &err) | mode_evalset_digest(again, b, &err), MODE_OK);
    assert_string_equal(a, b);
    assert_int_equal(mode_pack_task(&n, &t, out, 2, false, &err), MODE_E_CREATE); /* not over an older one */
    assert_non_null(strstr(err.text, "task-c: holds dataset_type.txt already"));

    t.class_names = names;
    t.templates = templates;
    put_words("names.txt", "striped horse\nwolf\n");
    put_words("templates.txt", "a {c}\nthe {c}, seen from afar\n");
    assert_int_equal(mode_dir_remove(again, &err), MODE_OK);
    if (mode_pack_task(&n, &t, again, 2, false, &err)) fail_msg("%s", err.text);
    assert_text("task-d/classnames.txt", "striped horse\nwolf\n");
    assert_text("task-d/zeroshot_classification_templates.txt", "a {c}\nthe {c}, seen from afar\n");
    put_words("names.txt", "wolf\n");
    task_refused(&t, true, MODE_E_FORMAT, "names.txt: 1 class names, but");
    put_words("names.txt", "horse\nwolf\n");
    put_words("templates.txt", "a {}\n");
    task_refused(&t, true, MODE_E_FORMAT, "templates.txt: line 1 has no {c}");
    t.templates = NULL;
    put_in("classes/wolf3", "cut.jpg", jpeg.data, jpeg.size - 30);
    put_words("names.txt", "a\nb\nc\n");
    task_refused(&t, false, MODE_E_FORMAT, "wolf3/cut.jpg: the picture is cut");
    assert_int_equal(mode_dir_remove(again, &err), MODE_OK);
    if (mode_pack_task(&n, &t, again, 2, true, &err)) fail_msg("%s", err.text);
    assert_int_equal(n.cut_image, 1);
    assert_text("task-d/classnames.txt", "a\nb\nc\n");
    char *cut = in_dir("classes/wolf3/cut.jpg");
    assert_int_equal(unlink(cut), 0);
    task_refused(&t, false, MODE_E_FORMAT, "wolf3: no .jpg, .jpeg, .png or .webp in the folder of a class");
    put_in("classes", "stray.jpg", jpeg.data, jpeg.size);
    task_refused(&t, true, MODE_E_FORMAT, "stray.jpg: is a picture beside the classes' folders");
    free(cut), free(source), free(out), free(again), free(names), free(templates);
}

static void test_folders_named_by_numbers(void **state)
{
    (void)state;
    struct mode_pack_counts n;
    char *source = in_dir("numbers"), *out = in_dir("task-n"), *synsets = in_dir("synsets");
    const struct mode_pack_task t = {.source = source}, of_words = {.source = synsets};
    put_in("numbers/10", "1.jpg", jpeg.data, jpeg.size);
    put_in("numbers/9", "1.jpg", jpeg.data, jpeg.size);
    put_in("numbers/007", "1.jpg", jpeg.data, jpeg.size);
    if (mode_pack_task(&n, &t, out, 10, false, &err)) fail_msg("%s", err.text);
    assert_text("task-n/classnames.txt", "007\n9\n10\n");
    put_in("synsets/n01440764", "1.jpg", jpeg.data, jpeg.size);
    task_refused(&of_words, false, MODE_E_USAGE, "folders like n01440764 are named by numbers that say nothing");
    free(source), free(out), free(synsets);
}

static void test_coco_captions_become_a_task(void **state)
{
    (void)state;
    static const char good[] =
        "{\"info\": {}, \"images\": [{\"id\": 77, \"file_name\": \"p2.jpg\"}, {\"id\": -5, \"file_name\": "
        "\"sub/p1.png\"}],\n \"annotations\": [{\"id\": 1, \"image_id\": -5, \"caption\": \"of five\"},\n"
        "{\"image_id\": 77, \"caption\": \" two \\n\\u00e9 \\n\"}, {\"image_id\": -5, \"caption\": \"again\"}]}";
    static const struct {
        const char *text, *hint;
    } bad[] = {
        {"[1", "not JSON, line 1"},
        {"[]", "no list \"images\"; expected COCO's captions"},
        {"{\"images\": []}", "no list \"annotations\""},
        {"{\"images\": [{\"id\": \"x\", \"file_name\": \"a\"}]}", "item 0 of \"images\" lacks an integer \"id\""},
        {"{\"images\": [], \"annotations\": [{\"image_id\": 3, \"caption\": \"c\"}]}",
         "item 0 of \"annotations\" is about image 3"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"a\"}, {\"id\": 1, \"file_name\": \"b\"}], \"annotations\": []}",
         "two of \"images\" have the id 1"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"p2.jpg\"}], \"annotations\": []}", "p2.jpg has no caption"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"p2.jpg\"}], \"annotations\": [{\"image_id\": 1, \"caption\": "
         "\" \\n\"}]}",
         "p2.jpg has a blank caption"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"none.jpg\"}], \"annotations\": [{\"image_id\": 1, \"caption\": "
         "\"c\"}]}",
         "none.jpg"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"../p2.jpg\"}], \"annotations\": [{\"image_id\": 1, \"caption\": "
         "\"c\"}]}",
         "leads out of the pictures' folder"},
        {"{\"images\": [], \"annotations\": []}", "no pictures"},
    };
    struct mode_pack_counts n;
    struct mode_evalset e;
    char *source = in_dir("captions.json"), *pics = in_dir("pics"), *out = in_dir("task-r"),
         *beside = in_dir("pics/c.json"), *other = in_dir("task-s");
    struct mode_pack_task t = {.source = source, .pictures = pics};
    char a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX];
    put_words("captions.json", good);
    if (mode_pack_task(&n, &t, out, 10, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(n.packed, 2);
    if (mode_evalset_open(&e, out, &err)) fail_msg("%s", err.text);
    assert_int_equal(e.kind, MODE_TASK_RETRIEVAL);
    assert_int_equal(e.n_texts, 3);
    assert_string_equal(e.texts[0], "two \n\xc3\xa9");
    assert_string_equal(e.texts[1], "of five");
    assert_string_equal(e.texts[2], "again");
    static const int32_t of[] = {0, 1, 1};
    assert_memory_equal(e.image_of_text, of, sizeof of);
    assert_int_equal(e.image_size[1], png.size);
    mode_evalset_close(&e);
    put_words("pics/c.json", good); /* the pictures are in the file's folder */
    t = (struct mode_pack_task){.source = beside};
    if (mode_pack_task(&n, &t, other, 10, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_evalset_digest(out, a, &err) | mode_evalset_digest(other, b, &err), MODE_OK);
    assert_string_equal(a, b);
    t = (struct mode_pack_task){.source = source, .pictures = pics};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_words("captions.json", bad[i].text);
        char *no = in_dir("no-task");
        enum mode_status st = mode_pack_task(&n, &t, no, 10, false, &err);
        if (!st || !strstr(err.text, bad[i].hint)) fail_msg("\"%s\" lacks \"%s\"", err.text, bad[i].hint);
        assert_false(mode_file_exists(no));
        free(no);
    }
    put_words("captions.json", bad[8].text);
    task_refused(&t, true, MODE_E_FORMAT, "no picture could be packed");
    assert_int_equal(unlink(beside), 0);
    free(source), free(pics), free(out), free(beside), free(other);
}

/* Lines with the same picture are captions of one image; CSV, a plain list and COCO JSON give the same bytes. */
static void test_a_list_becomes_a_task(void **state)
{
    (void)state;
    static const char
        csv[] = "licence;text;image\n"
                "CC0;\" two \n\xc3\xa9 \n\";p2.jpg\n"
                "CC0;of five;sub/p1.png\n"
                "CC0;second;p2.jpg\n"
                "CC0;\"again; and\tagain\";sub/p1.png\n",
        plain[] = "# of us\np2.jpg\ttwo\t\tthree\nsub/p1.png\t{five}\np2.jpg\t \tfour\n",
        coco[] = " \n{\"images\": [{\"id\": 7, \"file_name\": \"p2.jpg\"}, {\"id\": 5, \"file_name\": "
                 "\"sub/p1.png\"}], \"annotations\": [{\"image_id\": 7, \"caption\": \"two \\n\xc3\xa9\"},"
                 "{\"image_id\": 5, \"caption\": \"of five\"}, {\"image_id\": 7, \"caption\": \"second\"},"
                 "{\"image_id\": 5, \"caption\": \"again; and\\tagain\"}]}",
        absolute[] = "filepath\ttitle\n%s\tone\n";
    struct mode_pack_counts n;
    struct mode_evalset e;
    char *list = in_dir("pics/val"), *elsewhere = in_dir("val.tsv"), *pics = in_dir("pics"), *out = in_dir("task-l"),
         *other = in_dir("task-m"), a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX];
    struct mode_pack_task t = {.source = list, .list = {.img_key = "image", .caption_key = "text", .separator = ';'}};
    put_words("pics/val", csv);
    if (mode_pack_task(&n, &t, out, 10, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(n.pairs, 2);
    assert_int_equal(n.packed, 2);
    put_words("pics/val", coco); /* detected by its content */
    if (mode_pack_task(&n, &t, other, 10, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_evalset_digest(out, a, &err) | mode_evalset_digest(other, b, &err), MODE_OK);
    assert_string_equal(a, b);
    assert_int_equal(mode_dir_remove(out, &err) | mode_dir_remove(other, &err), MODE_OK);

    t = (struct mode_pack_task){.source = elsewhere, .pictures = pics};
    put_words("val.tsv", plain);
    if (mode_pack_task(&n, &t, out, 1, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(n.shards, 2);
    if (mode_evalset_open(&e, out, &err)) fail_msg("%s", err.text);
    static const char *const texts[] = {"two", "three", "four", "{five}"};
    static const int32_t of[] = {0, 0, 0, 1};
    assert_int_equal(e.n_texts, 4);
    for (int i = 0; i < 4; i++) assert_string_equal(e.texts[i], texts[i]);
    assert_memory_equal(e.image_of_text, of, sizeof of);
    mode_evalset_close(&e);
    assert_int_equal(mode_dir_remove(out, &err), MODE_OK);

    char *picture = in_dir("pics/p2.jpg"), *text = mode_xasprintf(absolute, picture);
    t.pictures = NULL;
    put_words("val.tsv", text);
    if (mode_pack_task(&n, &t, out, 1, false, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_dir_remove(out, &err), MODE_OK);
    free(list), free(elsewhere), free(pics), free(out), free(other), free(picture), free(text);
}

/* A pipe can be read once: what it holds is recognised from that, and relative paths start at the current folder. */
static void test_a_list_through_a_pipe(void **state)
{
    (void)state;
    static const char *const texts[] = {"p2.jpg\ttwo\tthree\n",
                                        " {\"images\": [{\"id\": 1, \"file_name\": \"p2.jpg\"}], \"annotations\": "
                                        "[{\"image_id\": 1, \"caption\": \"two\"}]}"};
    const int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *pics = in_dir("pics"), *out = in_dir("task-p"), source[32];
    struct mode_pack_counts n;
    const struct mode_pack_task t = {.source = source};
    const struct mode_pack_options pairs = {.per_shard = 10};
    assert_int_equal(chdir(pics), 0);
    for (int i = 0; i < 3; i++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], texts[i % 2], strlen(texts[i % 2])), strlen(texts[i % 2]));
        close(ends[1]);
        snprintf(source, sizeof source, "/dev/fd/%d", ends[0]);
        if (i < 2 ? mode_pack_task(&n, &t, out, 10, false, &err) : mode_pack(&n, source, out, &pairs, &err))
            fail_msg("%d: %s", i, err.text);
        close(ends[0]);
        assert_int_equal(n.packed, 1);
        assert_int_equal(mode_dir_remove(out, &err), MODE_OK);
    }
    assert_int_equal(fchdir(here), 0);
    close(here);
    free(pics), free(out);
}

static void test_a_list_with_bad_lines(void **state)
{
    (void)state;
#define HEAD "filepath\ttitle\n" P "\tone\n"
    static const struct {
        const char *text, *hint;
        enum mode_status st;
    } bad[] = {{HEAD P "\n", "val.tsv, line 3: expected 2 columns as in the first line, got 1. HINT: --skip-bad",
                MODE_E_FORMAT},
               {HEAD "none.jpg\ta\nnone.jpg\tb\n", "val.tsv, line 3: ", MODE_E_NOINPUT},
               {HEAD "val.tsv\ta\n", "val.tsv, line 3: ", MODE_E_FORMAT},
               {HEAD P "\t\" \v\"\n", "val.tsv, line 3: no caption for the picture. HINT: --skip-bad", MODE_E_FORMAT},
               {HEAD P "\tcaf\xe9\n", "val.tsv, line 3: is not UTF-8. HINT: --skip-bad", MODE_E_FORMAT},
               {"image\ttitle\n", "expected a header with the columns", MODE_E_FORMAT},
               {"image\tcaption\n", "line 1, which is not a header with the columns", MODE_E_NOINPUT},
               {"filepath\ttitle\n", "no pictures", MODE_E_NOINPUT},
               {"", "no pictures", MODE_E_NOINPUT}};
    struct mode_pack_counts n;
    char *list = in_dir("val.tsv"), *out = in_dir("task-b");
    const struct mode_pack_task t = {.source = list};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_words("val.tsv", bad[i].text);
        task_refused(&t, false, bad[i].st, bad[i].hint);
    }
    put_words("val.tsv", HEAD "none.jpg\ta\nnone.jpg\tb\n" P "\n" P "\t \n" P "\ttwo\nval.tsv\ta\n");
    if (mode_pack_task(&n, &t, out, 10, true, &err)) fail_msg("%s", err.text);
    assert_int_equal(n.pairs, 5); /* three pictures, two lines without a picture or a caption */
    assert_int_equal(n.packed, 1);
    assert_int_equal(n.no_file, 1);
    assert_int_equal(n.not_an_image, 1);
    assert_int_equal(n.no_caption, 1);
    assert_int_equal(n.bad_text, 1);
    free(list), free(out);
}

static void test_inspect(void **state)
{
    (void)state;
    struct mode_pack_counts n;
    struct mode_text_keys keys;
    char *pics = in_dir("pics"), *out = in_dir("out-inspect"), *tar = in_dir("out-inspect/00000.tar");
    json_t *v;
    assert_int_equal(pack(&n, pics, out, 10, false), MODE_OK);
    assert_int_equal(mode_text_keys_parse(&keys, NULL, 0, &err), MODE_OK);
    if (mode_inspect(&v, tar, &keys, 2, &err)) fail_msg("%s", err.text);
    assert_string_equal(json_string_value(json_object_get(v, "kind")), "shard");
    assert_int_equal(json_integer_value(json_object_get(v, "rows")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(v, "members"), "png")), 2);
    assert_int_equal(json_array_size(json_object_get(v, "first")), 2);
    json_decref(v);
    char *picture = in_dir("pics/p10.jpg");
    assert_int_equal(mode_inspect(&v, picture, &keys, 2, &err), MODE_OK);
    assert_string_equal(json_string_value(json_object_get(v, "type")), "PNG");
    json_decref(v);
    char *text = in_dir("pics/p2.txt");
    assert_int_equal(mode_inspect(&v, text, &keys, 2, &err), MODE_E_FORMAT);
    assert_null(v);
    free(text), free(picture), free(pics), free(out), free(tar);
}

static const char *example(const json_t *v, const char *selector, json_int_t samples)
{
    const json_t *field = json_object_get(json_object_get(v, "json_fields"), selector);
    assert_int_equal(json_integer_value(json_object_get(field, "samples")), samples);
    return json_string_value(json_object_get(field, "example"));
}

static void test_inspect_lists_the_fields_of_json(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
    } member[] = {{"0.txt", "no json"},
                  {"1.json", "{\"text\": \"\", \"width\": 256, \"tags\": [\"a\\nb\", \"c\"], \"nothing\": null}"},
                  {"2.json", "{\"text\": \"a picture\", \"width\": 0.5, \"texts\": [[\"alt\", \"w\"]]}"},
                  {"3.json", "{\"text\": "},
                  {"4.meta.json", "{\"text\": \"'123456789'123456789'123456789'123456789'123456789'123456789'123456789'"
                                  "12345678\u00fc9\"}"}};
    struct mode_tar_writer *w;
    struct mode_text_keys keys;
    char *tar = in_dir("fields.tar"), *plain = in_dir("plain.tar");
    json_t *v;
    assert_int_equal(mode_text_keys_parse(&keys, NULL, 0, &err), MODE_OK);
    assert_int_equal(mode_tar_writer_open(&w, tar, &err), MODE_OK);
    for (size_t i = 0; i < sizeof member / sizeof *member; i++)
        assert_int_equal(mode_tar_writer_add(w, member[i].name, member[i].text, strlen(member[i].text), &err), MODE_OK);
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    if (mode_inspect(&v, tar, &keys, 0, &err)) fail_msg("%s", err.text);
    assert_int_equal(json_integer_value(json_object_get(v, "json_members_read")), 4);
    assert_int_equal(json_object_size(json_object_get(v, "json_fields")), 6);
    assert_string_equal(example(v, "json:text", 2), "a picture");
    assert_string_equal(example(v, "json:width", 2), "256");
    assert_string_equal(example(v, "json:tags[]", 1), "a b");
    assert_string_equal(example(v, "json:texts[]", 1), "[\"alt\",\"w\"]");
    assert_null(example(v, "json:nothing", 1));
    assert_string_equal(example(v, "meta.json:text", 1),
                        "'123456789'123456789'123456789'123456789'123456789'123456789'123456789'12345678...");
    json_decref(v);
    assert_int_equal(mode_tar_writer_open(&w, plain, &err), MODE_OK);
    assert_int_equal(mode_tar_writer_add(w, member[0].name, member[0].text, 7, &err), MODE_OK);
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    if (mode_inspect(&v, plain, &keys, 0, &err)) fail_msg("%s", err.text);
    assert_null(json_object_get(v, "json_fields"));
    json_decref(v);
    free(tar), free(plain);
}

static void test_dali_index(void **state)
{
    (void)state;
    struct mode_pack_counts n;
    struct mode_tar_data d;
    struct mode_sample_list s;
    char *pics = in_dir("pics"), *out = in_dir("out-dali"), *tar = in_dir("out-dali/00000.tar"), *idx = in_dir("0.idx");
    char *text, want[256];
    assert_int_equal(pack(&n, pics, out, 1, false), MODE_OK);
    assert_int_equal(mode_tar_data_open(&d, tar, &err), MODE_OK);
    assert_int_equal(mode_samples_list(&s, &d, tar, &err), MODE_OK);
    assert_int_equal(mode_dali_index_write(idx, &s, &err), MODE_OK);
    assert_int_equal(mode_file_read(idx, 0, &text, NULL, &err), MODE_OK);
    snprintf(want, sizeof want, "v1.2 1\njpg 512 %zu 00000000000.jpg txt %zu 3 00000000000.txt\n", jpeg.size,
             512 + (jpeg.size + 511) / 512 * 512 + 512);
    assert_string_equal(text, want);
    assert_memory_equal(d.data + s.members[1].offset, "two", 3);
    s.groups[0].key[0] = ' ';
    assert_int_equal(mode_dali_index_write(idx, &s, &err), MODE_E_VALUE);
    mode_sample_list_clear(&s);
    mode_tar_data_close(&d);
    free(text), free(pics), free(out), free(tar), free(idx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_cut_pictures),
        cmocka_unit_test(test_class_folders_become_a_task),
        cmocka_unit_test(test_folders_named_by_numbers),
        cmocka_unit_test(test_coco_captions_become_a_task),
        cmocka_unit_test(test_a_list_becomes_a_task),
        cmocka_unit_test(test_a_list_through_a_pipe),
        cmocka_unit_test(test_a_list_with_bad_lines),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_csv_that_cannot_be_understood),
        cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_inspect_lists_the_fields_of_json),
        cmocka_unit_test(test_dali_index),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
