/* Overlap of training and evaluation images: planted duplicates are found, all and none else, in tar order; what cannot be
 * read is counted. */
#include "base/file.h"
#include "base/parallel.h"
#include "data/tar.h"
#include "picture_fixture.h"
#include "pipeline/overlap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-overlap-XXXXXX";
static struct mode_error err;
static struct mode_str log_; /* a line for each match, in the order of the calls */
static int stop_after;       /* calls of going; 0: never */
static double least = 0.9;   /* correlation */

enum { SIDE = 64 };

/* A drawing of rectangles, a function of seed; by: added to every value. */
static uint8_t *draw(uint64_t seed, int by)
{
    uint8_t *p = mode_xmalloc(SIDE * SIDE * 3);
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 5, 0);
    memset(p, 100 + by, SIDE * SIDE * 3);
    for (int b = 0; b < 12; b++) {
        const int x0 = (int)mode_rng_below(&r, SIDE), y0 = (int)mode_rng_below(&r, SIDE);
        const int w = 8 + (int)mode_rng_below(&r, 24), h = 8 + (int)mode_rng_below(&r, 24);
        const uint32_t colour = mode_rng_u32(&r);
        for (int y = y0; y < y0 + h && y < SIDE; y++)
            for (int x = x0; x < x0 + w && x < SIDE; x++)
                for (int c = 0; c < 3; c++)
                    p[3 * (y * SIDE + x) + c] = (uint8_t)(20 + (colour >> (8 * c) & 127) + (uint32_t)by);
    }
    return p;
}

static struct bytes encode(const uint8_t *pixels, int quality)
{
    struct jpeg_compress_struct c = {0};
    struct jpeg_error_mgr e;
    unsigned char *mem = NULL;
    unsigned long size = 0;
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &mem, &size);
    c.image_width = c.image_height = SIDE;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, quality, TRUE);
    jpeg_start_compress(&c, TRUE);
    for (int y = 0; y < SIDE; y++) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(pixels + (size_t)y * SIDE * 3);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return (struct bytes){mem, size};
}

static char *path_of(const char *name)
{
    return mode_path_join(dir, name);
}

static struct mode_tar_writer *begin(const char *name)
{
    struct mode_tar_writer *w;
    char *path = path_of(name);
    assert_int_equal(mode_tar_writer_open(&w, path, &err), MODE_OK);
    free(path);
    return w;
}

static void add(struct mode_tar_writer *w, const char *key, const char *ext, const void *data, size_t size)
{
    char *name = mode_xasprintf("%s.%s", key, ext);
    assert_int_equal(mode_tar_writer_add(w, name, data, size, &err), MODE_OK);
    free(name);
}

static void add_drawing(struct mode_tar_writer *w, const char *key, uint64_t seed, int quality, int by)
{
    uint8_t *p = draw(seed, by);
    struct bytes j = encode(p, quality);
    add(w, key, "jpg", j.data, j.size);
    free(j.data);
    free(p);
}

/* A drawing with hardly any contrast. */
static void add_flat(struct mode_tar_writer *w, const char *key, int quality)
{
    uint8_t *p = draw(7, 0);
    for (int i = 0; i < SIDE * SIDE * 3; i++) p[i] = (uint8_t)(190 + p[i] / 14);
    struct bytes j = encode(p, quality);
    add(w, key, "jpg", j.data, j.size);
    free(j.data);
    free(p);
}

static void write_text(const char *name, const char *text)
{
    char *path = path_of(name);
    assert_int_equal(mode_file_write_atomic(path, text, strlen(text), &err), MODE_OK);
    free(path);
}

/* n drawings from `first` on; odd: then a flat image and one that does not decode. */
static void write_task(const char *name, int first, int n, bool odd)
{
    char *test = mode_xasprintf("%s/%s/test", dir, name), key[32];
    assert_int_equal(mode_dir_make(test, &err), MODE_OK);
    free(test);
    static const char *const files[][2] = {
        {"classnames.txt", "x\n"}, {"zeroshot_classification_templates.txt", "{c}\n"}, {"test/nshards.txt", "1\n"}};
    for (int i = 0; i < 3; i++) {
        char *file = mode_xasprintf("%s/%s", name, files[i][0]);
        write_text(file, files[i][1]);
        free(file);
    }
    char *tar = mode_xasprintf("%s/test/0.tar", name);
    struct mode_tar_writer *w = begin(tar);
    for (int i = 0; i < n + (odd ? 2 : 0); i++) {
        snprintf(key, sizeof key, "s%07d", i);
        add(w, key, "cls", "0", 1);
        if (i < n)
            add_drawing(w, key, (uint64_t)(first + i), 90, 0);
        else if (i == n)
            add_flat(w, key, 100);
        else
            add(w, key, "jpg", "no picture", 10);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    free(tar);
}

/* 600 drawings that are none of the tasks', with these among them: drawing 3 as it is, 17 (of both tasks) brighter and of
 * lower quality, the flat one as it is and of lower quality, the bad one; a sample without an image. */
static void write_shard(void)
{
    struct mode_tar_writer *w = begin("train.tar");
    char key[32];
    for (int i = 0; i < 600; i++) {
        snprintf(key, sizeof key, "k%04d", i);
        if (i == 5) add_flat(w, "flat", 100);
        if (i == 6) add_flat(w, "flat2", 98);
        if (i == 100) add_drawing(w, "same", 3, 90, 0);
        if (i == 300) add(w, "bad", "jpg", "no picture", 10);
        if (i == 301) add(w, "bad2", "jpg", "another that is no picture", 26);
        if (i == 400) add(w, "text", "txt", "a", 1);
        if (i == 500) add_drawing(w, "like", 17, 40, 20);
        add_drawing(w, key, (uint64_t)(1000 + i), 90, 0);
    }
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_task("a", 0, 20, true);
    write_task("b", 15, 10, false);
    write_shard();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mode_str_clear(&log_);
    return mode_dir_remove(dir, NULL);
}

static enum mode_status on_found(void *ctx, const struct mode_overlap_found *f, struct mode_error *e)
{
    (void)ctx;
    (void)e;
    for (size_t i = 0; i < f->n; i++) {
        const struct mode_overlap_match *m = &f->match[i];
        mode_str_printf(&log_, "%s %d %d %s %s\n", f->key, m->task, m->image, m->image_key,
                        m->kind == MODE_OVERLAP_EXACT ? "exact" : "near");
        if (m->kind == MODE_OVERLAP_EXACT) assert_true(m->distance == 0 && m->correlation == 1);
        if (m->kind == MODE_OVERLAP_NEAR) assert_true(m->distance <= 10 && m->correlation >= least);
    }
    return MODE_OK;
}

static bool on_going(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    assert_true(done <= total);
    return stop_after == 0 || --stop_after > 0;
}

static void on_unreadable(void *ctx, const char *where, const char *key, const char *why)
{
    (void)ctx;
    assert_non_null(strstr(why, "not a JPEG, PNG or WebP picture"));
    mode_str_printf(&log_, "unreadable %s %s\n", strrchr(where, '/') ? strrchr(where, '/') + 1 : where, key);
}

static bool is_bad; /* the shard that was read last */

static enum mode_status run_on(struct mode_overlap **o, const char *const *tasks, int n_tasks, const char *shard)
{
    const struct mode_overlap_options options = {.distance = 10,
                                                 .correlation = least,
                                                 .limits = MODE_IMAGE_LIMITS_DEFAULT,
                                                 .found = on_found,
                                                 .going = on_going,
                                                 .unreadable = on_unreadable};
    char *dirs[2], *path = path_of(shard);
    mode_str_clear(&log_);
    for (int t = 0; t < n_tasks; t++) dirs[t] = path_of(tasks[t]);
    enum mode_status st = mode_overlap_open(o, &options, dirs, n_tasks, &err);
    if (!st) st = mode_overlap_shard(*o, path, &is_bad, &err);
    for (int t = 0; t < n_tasks; t++) free(dirs[t]);
    free(path);
    return st;
}

static enum mode_status run(struct mode_overlap **o, const char *shard)
{
    return run_on(o, (const char *const[]){"a", "b"}, 2, shard);
}

static void test_planted_duplicates_are_found_and_none_else(void **state)
{
    (void)state;
    struct mode_overlap *o;
    if (run(&o, "train.tar")) fail_msg("%s", err.text);
    assert_string_equal(log_.data, "unreadable a s0000021\n"
                                   "flat 0 20 s0000020 exact\n"
                                   "same 0 3 s0000003 exact\n"
                                   "unreadable train.tar bad\n"
                                   "bad 0 21 s0000021 exact\n"
                                   "unreadable train.tar bad2\n"
                                   "like 0 17 s0000017 near\n"
                                   "like 1 2 s0000002 near\n");
    assert_false(is_bad);
    const struct mode_overlap_task *a = mode_overlap_task(o, 0), *b = mode_overlap_task(o, 1);
    assert_string_equal(a->name, "a");
    assert_int_equal(a->n_images, 22);
    assert_int_equal(a->unreadable, 1);
    assert_int_equal(a->exact, 3);
    assert_int_equal(a->near, 1);
    assert_int_equal(a->training, 4);
    assert_int_equal(b->n_images, 10);
    assert_int_equal(b->exact, 0);
    assert_int_equal(b->near, 1);
    assert_int_equal(b->training, 1);
    const struct mode_overlap_training *t = mode_overlap_training(o);
    assert_int_equal(t->shards, 1);
    assert_int_equal(t->images, 606);
    assert_int_equal(t->unreadable, 2);
    assert_int_equal(t->no_image, 1);
    assert_int_equal(t->truncated, 0);
    assert_int_equal(t->cut, 0);
    mode_overlap_close(&o);
}

/* An image found twice counts once; exact and near of one image is exact. */
static void test_counts_are_of_images(void **state)
{
    (void)state;
    struct mode_tar_writer *w = begin("twice.tar");
    struct mode_overlap *o;
    add_drawing(w, "near", 3, 40, 10);
    add_drawing(w, "same", 3, 90, 0);
    add_drawing(w, "again", 3, 90, 0);
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    if (run(&o, "twice.tar")) fail_msg("%s", err.text);
    assert_int_equal(mode_overlap_task(o, 0)->exact, 1);
    assert_int_equal(mode_overlap_task(o, 0)->near, 0);
    assert_int_equal(mode_overlap_task(o, 0)->training, 3);
    mode_overlap_close(&o);
    least = 0.99999;
    if (run(&o, "twice.tar")) fail_msg("%s", err.text);
    least = 0.9;
    assert_int_equal(mode_overlap_task(o, 0)->training, 2); /* the near one correlates less */
    mode_overlap_close(&o);
}

/* A task of more images than are compared at once; an image that is near one of them and exactly another. */
static void test_matches_of_an_image_are_in_the_order_of_the_task(void **state)
{
    (void)state;
    struct mode_overlap *o;
    write_task("c", 2000, 700, false);
    struct mode_tar_writer *task = begin("c/test/1.tar"), *w = begin("c.tar");
    add(task, "again", "cls", "0", 1);
    add_drawing(task, "again", 2000, 60, 10);
    assert_int_equal(mode_tar_writer_finish(&task, &err), MODE_OK);
    write_text("c/test/nshards.txt", "2\n");
    add_drawing(w, "x", 2000, 60, 10);
    add_drawing(w, "y", 2650, 40, 20);
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    if (run_on(&o, (const char *const[]){"c"}, 1, "c.tar")) fail_msg("%s", err.text);
    assert_string_equal(log_.data, "x 0 0 s0000000 near\n"
                                   "x 0 700 again exact\n"
                                   "y 0 650 s0000650 near\n");
    assert_int_equal(mode_overlap_task(o, 0)->exact, 1);
    assert_int_equal(mode_overlap_task(o, 0)->near, 2);
    assert_int_equal(mode_overlap_task(o, 0)->training, 2);
    mode_overlap_close(&o);
}

static void test_a_truncated_shard_keeps_what_is_whole(void **state)
{
    (void)state;
    struct mode_tar_writer *w = begin("cut.tar");
    struct mode_overlap *o;
    char *path = path_of("cut.tar");
    add_drawing(w, "same", 3, 90, 0);
    add_drawing(w, "cut", 4, 90, 0);
    assert_int_equal(mode_tar_writer_finish(&w, &err), MODE_OK);
    struct mode_mapping map;
    assert_int_equal(mode_file_map(path, &map, &err), MODE_OK);
    size_t second = MODE_TAR_BLOCK; /* of the second header */
    while (memcmp(map.data + second, "cut.jpg", 8) != 0) second += MODE_TAR_BLOCK;
    mode_file_unmap(&map);
    assert_int_equal(truncate(path, (off_t)(second + MODE_TAR_BLOCK + 100)), 0);
    if (run(&o, "cut.tar")) fail_msg("%s", err.text);
    assert_string_equal(log_.data, "unreadable a s0000021\nsame 0 3 s0000003 exact\n");
    const struct mode_overlap_training *t = mode_overlap_training(o);
    assert_int_equal(t->images, 1);
    assert_int_equal(t->truncated, 1);
    assert_int_equal(t->cut, 1);
    mode_overlap_close(&o);
    free(path);
}

static void test_it_stops_when_asked(void **state)
{
    (void)state;
    struct mode_overlap *o = NULL;
    stop_after = 1; /* in a task */
    assert_int_equal(run(&o, "train.tar"), MODE_E_STOPPED);
    assert_null(o);
    stop_after = 4; /* two tasks, then the second block of the shard */
    assert_int_equal(run(&o, "train.tar"), MODE_E_STOPPED);
    assert_non_null(strstr(err.text, "stopped after 512 of 607 samples"));
    mode_overlap_close(&o);
    stop_after = 0;
}

static void test_a_shard_that_is_no_tar_is_told_from_other_failures(void **state)
{
    (void)state;
    struct mode_overlap *o;
    char *path = path_of("page.tar");
    assert_int_equal(mode_file_write_atomic(path, "<html>", 6, &err), MODE_OK);
    assert_int_equal(run(&o, "page.tar"), MODE_E_FORMAT);
    assert_true(is_bad);
    assert_int_equal(mode_overlap_training(o)->shards, 0);
    mode_overlap_close(&o);
    assert_int_equal(run(&o, "nowhere.tar"), MODE_E_NOINPUT);
    assert_false(is_bad);
    mode_overlap_close(&o);
    free(path);
}

int main(void)
{
    mode_parallel_set_threads(3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_duplicates_are_found_and_none_else),
        cmocka_unit_test(test_counts_are_of_images),
        cmocka_unit_test(test_matches_of_an_image_are_in_the_order_of_the_task),
        cmocka_unit_test(test_a_truncated_shard_keeps_what_is_whole),
        cmocka_unit_test(test_a_shard_that_is_no_tar_is_told_from_other_failures),
        cmocka_unit_test(test_it_stops_when_asked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
