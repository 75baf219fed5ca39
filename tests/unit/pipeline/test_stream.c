/* The data loader: what is in a batch, and that it depends on the step alone. */
#include "clip_world.h"
#include "data/face_boxes.h"
#include "pipeline/ahead.h"

#include "base/memory.h"
#include "base/parallel.h"
#include "data/tokenizer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { BATCH = 13, SIDE = 16, CONTEXT = 16 };

static struct world world;
static struct mode_tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    return mode_tokenizer_open_clip(&tokenizer, world.merges, MODE_CLIP_CLEAN_OPENAI, NULL) != MODE_OK;
}

static int teardown(void **state)
{
    (void)state;
    mode_tokenizer_close(&tokenizer);
    world_close(&world);
    return 0;
}

static struct mode_stream_options options_of(int32_t expert)
{
    struct mode_stream_options o = {.n_shards = WORLD_SHARDS,
                                    .shards = world.shards,
                                    .centres = world.centres,
                                    .expert = expert,
                                    .out_ratio = 0.1,
                                    .scale_min = 0.5,
                                    .scale_max = 1.0,
                                    .seed = 9,
                                    .context = CONTEXT,
                                    .tokenizer = tokenizer};
    mode_preprocess_default(&o.preprocess, SIDE);
    return o;
}

static const struct mode_box face = {1, 1, 9, 8};

/* Copies of the captions in which every picture has a face. */
static void add_faces(struct mode_stream_shard *shards)
{
    for (int i = 0; i < WORLD_SHARDS; i++) {
        struct mode_captions c;
        char *path = mode_xasprintf("%s.faces", world.captions[i]);
        assert_int_equal(mode_captions_load(&c, world.captions[i], NULL), MODE_OK);
        struct mode_sample *samples = mode_xcalloc(c.n_samples, sizeof *samples);
        for (uint32_t k = 0; k < c.n_samples; k++) {
            samples[k] = mode_captions_sample(&c, k);
            samples[k].boxes = &face;
            samples[k].n_boxes = 1;
        }
        c.samples = samples;
        assert_int_equal(mode_captions_save(&c, path, NULL), MODE_OK);
        mode_captions_clear(&c);
        free(samples);
        shards[i] = world.shards[i];
        shards[i].captions = path;
    }
}

static void check_batches(bool faces)
{
    struct mode_stream_options o = options_of(1);
    struct mode_stream_shard with_faces[WORLD_SHARDS];
    if (faces) {
        add_faces(with_faces);
        o.shards = with_faces;
        o.expert = MODE_POOL_ALL; /* the assignments do not match these captions */
    }
    struct mode_stream *s = NULL;
    struct mode_batch b = {0};
    struct mode_error err = {0};
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_OK);
    assert_int_equal(mode_batch_init(&b, BATCH, SIDE, CONTEXT, &err), MODE_OK);
    assert_int_equal((uintptr_t)b.pixels % MODE_PAGE, 0); /* page-aligned, to be pinned */
    const struct mode_pool *p = mode_stream_pool(s);
    assert_int_equal(p->n_in + p->n_outside, WORLD_SHARDS * WORLD_ROWS);

    for (uint64_t step = 0; step * BATCH <= WORLD_SHARDS * WORLD_ROWS; step++) { /* every row at least once */
        assert_int_equal(mode_stream_fill(s, &b, step, &err), MODE_OK);
        struct mode_pool again;
        int32_t coarse[WORLD_SHARDS * WORLD_ROWS];
        uint32_t rows[BATCH], epochs[BATCH];
        for (int i = 0; i < WORLD_SHARDS * WORLD_ROWS; i++) {
            int fine = world.fine[i / WORLD_ROWS][i % WORLD_ROWS];
            coarse[i] = faces || fine == 0 || fine == 3;
        }
        assert_int_equal(mode_pool_init(&again, WORLD_SHARDS * WORLD_ROWS, coarse, 1, 0.1, 9, NULL), MODE_OK);
        mode_pool_draw(&again, step * BATCH, BATCH, rows, epochs);
        const int32_t *ids = b.ids;
        for (int i = 0; i < BATCH; i++) {
            struct mode_captions c;
            struct mode_tar_data tar;
            struct mode_image im = {0};
            const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
            float want[3 * SIDE * SIDE];
            int32_t want_ids[CONTEXT];
            int shard = (int)rows[i] / WORLD_ROWS;
            assert_int_equal(mode_captions_load(&c, world.captions[shard], NULL), MODE_OK);
            assert_int_equal(mode_tar_data_open(&tar, world.tar[shard], NULL), MODE_OK);
            const struct mode_sample sample = mode_captions_row(&c, rows[i] % WORLD_ROWS), *m = &sample;
            assert_int_equal(mode_image_decode(&im, tar.data + m->image_offset, m->image_size, &limits, NULL), MODE_OK);
            if (faces) assert_int_equal(mode_faces_blur(&im, &face, 1, NULL), MODE_OK);
            const struct mode_crop_draw draw = {
                .scale_min = 0.5, .scale_max = 1.0, .seed = 9, .epoch = epochs[i], .sample = rows[i]};
            assert_int_equal(mode_preprocess_train(&o.preprocess, &im, &draw, want, NULL), MODE_OK);
            assert_memory_equal(b.pixels + i * 3 * SIDE * SIDE, want, sizeof want);
            int n = mode_tokenizer_encode(tokenizer, m->caption, strlen(m->caption), want_ids, CONTEXT);
            assert_int_equal(b.n_ids[i], n);
            assert_memory_equal(ids, want_ids, (size_t)n * sizeof *ids);
            ids += n;
            mode_image_clear(&im);
            mode_tar_data_close(&tar);
            mode_captions_clear(&c);
        }
        mode_pool_clear(&again);
    }
    mode_batch_clear(&b);
    mode_stream_close(&s);
    assert_null(s);
    for (int i = 0; faces && i < WORLD_SHARDS; i++) free((char *)(uintptr_t)with_faces[i].captions);
}

static void test_a_batch_is_the_pool_s_rows_decoded_cropped_and_tokenised(void **state)
{
    (void)state;
    check_batches(false);
}

static void test_faces_are_blurred(void **state)
{
    (void)state;
    check_batches(true);
}

struct digest_one {
    char hex[MODE_DIGEST_HEX];
};

static void digest_in_item(void *ctx, int64_t item, int thread)
{
    struct digest_one *d = ctx;
    struct mode_stream_options o = options_of(MODE_POOL_ALL);
    struct mode_stream *s = NULL;
    struct mode_batch b = {0};
    (void)item;
    (void)thread;
    MODE_ASSERT(mode_stream_open(&s, &o, NULL) == MODE_OK &&
                mode_batch_init(&b, BATCH, SIDE, CONTEXT, NULL) == MODE_OK);
    MODE_ASSERT(mode_stream_fill(s, &b, 11, NULL) == MODE_OK);
    mode_digest_bytes(b.pixels, (size_t)BATCH * 3 * SIDE * SIDE * sizeof(float), d->hex);
    mode_batch_clear(&b);
    mode_stream_close(&s);
}

static void test_the_number_of_threads_does_not_show(void **state)
{
    (void)state;
    struct digest_one many, one;
    assert_true(mode_parallel_threads() > 1);
    digest_in_item(&many, 0, 0);
    mode_parallel_for(1, digest_in_item, &one); /* inside an item everything runs on one thread */
    assert_string_equal(many.hex, one.hex);
}

static void test_a_picture_that_went_bad_is_named(void **state)
{
    (void)state;
    struct mode_stream_options o = options_of(MODE_POOL_ALL);
    struct mode_stream *s = NULL;
    struct mode_batch b = {0};
    struct mode_captions c;
    struct mode_error err = {0};
    assert_int_equal(mode_captions_load(&c, world.captions[1], NULL), MODE_OK);
    const struct mode_sample sample = mode_captions_row(&c, 5), *m = &sample;
    int fd = open(world.tar[1], O_RDWR);
    uint8_t keep[64], rubbish[64] = {0};
    assert_int_equal(pread(fd, keep, sizeof keep, (off_t)m->image_offset + 20), sizeof keep);
    assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, (off_t)m->image_offset + 20), sizeof rubbish);

    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_OK);
    assert_int_equal(mode_batch_init(&b, WORLD_SHARDS * WORLD_ROWS, SIDE, CONTEXT, &err), MODE_OK);
    assert_int_not_equal(mode_stream_fill(s, &b, 0, &err), MODE_OK);
    char where[64];
    snprintf(where, sizeof where, "at byte %llu", (unsigned long long)m->image_offset);
    assert_non_null(strstr(err.text, "1.tar"));
    assert_non_null(strstr(err.text, m->key));
    assert_non_null(strstr(err.text, where));

    assert_int_equal(pwrite(fd, keep, sizeof keep, (off_t)m->image_offset + 20), sizeof keep);
    assert_int_equal(mode_stream_fill(s, &b, 0, &err), MODE_OK);
    close(fd);
    mode_captions_clear(&c);
    mode_batch_clear(&b);
    mode_stream_close(&s);
}

static bool same_batch(const struct mode_batch *a, const struct mode_batch *b)
{
    size_t tokens = 0;
    for (int i = 0; i < BATCH; i++) tokens += (size_t)a->n_ids[i];
    return memcmp(a->pixels, b->pixels, (size_t)BATCH * 3 * SIDE * SIDE * sizeof(float)) == 0 &&
           memcmp(a->n_ids, b->n_ids, BATCH * sizeof *a->n_ids) == 0 &&
           memcmp(a->ids, b->ids, tokens * sizeof *a->ids) == 0 && a->epoch == b->epoch;
}

static void test_batches_read_ahead_are_the_same(void **state)
{
    (void)state;
    enum { FIRST = 5, END = 17 };
    struct mode_stream_options o = options_of(MODE_POOL_ALL);
    struct mode_stream *one = NULL, *other = NULL;
    struct mode_batch want = {0};
    struct mode_error err = {0};
    assert_int_equal(mode_stream_open(&one, &o, &err), MODE_OK);
    assert_int_equal(mode_stream_open(&other, &o, &err), MODE_OK);
    assert_int_equal(mode_batch_init(&want, BATCH, SIDE, CONTEXT, &err), MODE_OK);
    for (int slots = 0; slots < 4; slots++)
        for (int taken = 0; taken <= END - FIRST; taken += END - FIRST - 4 * (slots % 2)) { /* or closed early */
            struct mode_ahead *ahead = NULL;
            const struct mode_batch *got;
            assert_int_equal(mode_ahead_open(&ahead, one, NULL, false, BATCH, SIDE, CONTEXT, FIRST, END, slots, &err),
                             MODE_OK);
            for (uint64_t step = FIRST; step < (uint64_t)(FIRST + taken); step++) {
                assert_int_equal(mode_ahead_next(ahead, &got, &err), MODE_OK);
                assert_int_equal(mode_stream_fill(other, &want, step, &err), MODE_OK);
                assert_true(same_batch(got, &want)); /* the prefetching thread does not write into it */
            }
            mode_ahead_close(&ahead);
            assert_null(ahead);
        }
    mode_batch_clear(&want);
    mode_stream_close(&one);
    mode_stream_close(&other);
}

/* By windows: in parts, as several ranks read them, and in any order of steps. */
static void test_by_windows_parts_are_the_whole(void **state)
{
    (void)state;
    enum { PARTS = 3, STEPS = 40, PIXELS = 3 * SIDE * SIDE };
    struct mode_stream_options o = options_of(1);
    struct mode_stream *whole = NULL, *part[PARTS] = {0};
    struct mode_batch all = {0}, one = {0};
    struct mode_error err = {0};
    o.window_shards = 2;
    assert_int_equal(mode_stream_open(&whole, &o, &err), MODE_OK);
    assert_null(mode_stream_warning(whole)); /* no warning for local files */
    o.parts = PARTS;
    for (int i = 0; i < PARTS; i++) {
        o.part = i;
        assert_int_equal(mode_stream_open(&part[i], &o, &err), MODE_OK);
    }
    assert_int_equal(mode_batch_init(&all, BATCH * PARTS, SIDE, CONTEXT, &err), MODE_OK);
    assert_int_equal(mode_batch_init(&one, BATCH, SIDE, CONTEXT, &err), MODE_OK);
    for (uint64_t i = 0; i < STEPS; i++) {
        const uint64_t step = i < STEPS / 2 ? i : STEPS - i;
        assert_int_equal(mode_stream_fill(whole, &all, step, &err), MODE_OK);
        for (int k = 0; k < PARTS; k++) {
            assert_int_equal(mode_stream_fill(part[k], &one, step, &err), MODE_OK);
            assert_memory_equal(one.pixels, all.pixels + (size_t)k * BATCH * PIXELS, BATCH * PIXELS * sizeof(float));
            assert_memory_equal(one.n_ids, all.n_ids + (size_t)k * BATCH, BATCH * sizeof *one.n_ids);
        }
    }
    mode_batch_clear(&all);
    mode_batch_clear(&one);
    mode_stream_close(&whole);
    for (int i = 0; i < PARTS; i++) mode_stream_close(&part[i]);
}

/* Compressed shards that exceed the memory limit are read from an unlinked file: the same batches. */
static void test_unpacked_shards_go_to_a_file(void **state)
{
    (void)state;
    struct mode_stream_options o = options_of(MODE_POOL_ALL);
    struct mode_stream_shard packed[WORLD_SHARDS];
    struct mode_batch want = {0}, got = {0};
    struct mode_error err = {0};
    struct mode_stream *s = NULL;
    uint64_t first = 0;
    assert_int_equal(mode_batch_init(&want, BATCH, SIDE, CONTEXT, &err), MODE_OK);
    assert_int_equal(mode_batch_init(&got, BATCH, SIDE, CONTEXT, &err), MODE_OK);
    for (int i = 0; i < WORLD_SHARDS; i++) {
        struct mode_captions c;
        char *tar = mode_xasprintf("%s.gz", world.tar[i]), *captions = mode_xasprintf("%s.gz", world.captions[i]);
        char *command = mode_xasprintf("gzip -c '%s' >'%s'", world.tar[i], tar), *text;
        size_t size;
        assert_int_equal(system(command), 0);
        assert_int_equal(mode_file_read(tar, 0, &text, &size, &err), MODE_OK);
        assert_int_equal(mode_captions_load(&c, world.captions[i], &err), MODE_OK);
        if (i == 0) first = c.data_size;
        c.shard_size = size;
        assert_int_equal(mode_captions_save(&c, captions, &err), MODE_OK);
        mode_captions_clear(&c);
        packed[i] = (struct mode_stream_shard){.captions = captions, .tar = tar};
        free(command);
        free(text);
    }
    char *scratch = mode_path_join(world.dir, "scratch");
    assert_int_equal(mode_dir_make(scratch, &err), MODE_OK);
    const uint64_t in_memory[] = {0, 1, first}; /* all, none, the first */
    for (size_t k = 0; k < 3; k++)
        for (uint64_t step = 0; step * BATCH <= WORLD_SHARDS * WORLD_ROWS; step++) { /* every row at least once */
            o = options_of(MODE_POOL_ALL);
            o.window_shards = step == 4; /* by windows, too */
            assert_int_equal(mode_stream_open(&s, &o, &err), MODE_OK);
            assert_int_equal(mode_stream_fill(s, &want, step, &err), MODE_OK);
            mode_stream_close(&s);
            o.shards = packed;
            o.in_memory = in_memory[k];
            o.scratch = scratch;
            if (mode_stream_open(&s, &o, &err)) fail_msg("%s", err.text);
            assert_int_equal(mode_stream_fill(s, &got, step, &err), MODE_OK);
            assert_true(same_batch(&got, &want));
            assert_int_equal(rmdir(scratch) | mkdir(scratch, 0700), 0); /* rmdir: it was empty */
            mode_stream_close(&s);
        }
    o.in_memory = 1;
    o.scratch = "/nowhere";
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_E_CREATE);
    assert_non_null(strstr(err.text, "/nowhere"));
    for (int i = 0; i < WORLD_SHARDS; i++) {
        free((char *)(uintptr_t)packed[i].captions);
        free((char *)(uintptr_t)packed[i].tar);
    }
    free(scratch);
    mode_batch_clear(&want);
    mode_batch_clear(&got);
}

static void test_a_shard_without_rows_need_not_be_there(void **state)
{
    (void)state;
    struct mode_stream_options o = options_of(MODE_POOL_ALL);
    struct mode_stream_shard shards[WORLD_SHARDS + 1];
    char *none = mode_path_join(world.dir, "none.captions.bin");
    const struct mode_captions file = {
        .shard_name = (char *)(uintptr_t) "none.tar", .shard_size = 7, .data_size = 7, .bad = "is not a tar"};
    struct mode_batch b[2] = {{0}, {0}};
    struct mode_error err = {0};
    assert_int_equal(mode_captions_save(&file, none, &err), MODE_OK);
    for (int i = 0, k = 0; i <= WORLD_SHARDS; i++)
        shards[i] = i == 1 ? (struct mode_stream_shard){.captions = none, .tar = "/nonexistent/none.tar"}
                           : world.shards[k++];
    for (int with = 0; with < 2; with++) {
        struct mode_stream *s;
        if (with) {
            o.shards = shards;
            o.n_shards = WORLD_SHARDS + 1;
        }
        if (mode_stream_open(&s, &o, &err)) fail_msg("%s", err.text);
        assert_int_equal(mode_batch_init(&b[with], BATCH, SIDE, CONTEXT, &err), MODE_OK);
        assert_int_equal(mode_stream_fill(s, &b[with], 3 * BATCH, &err), MODE_OK);
        mode_stream_close(&s);
    }
    assert_memory_equal(b[0].pixels, b[1].pixels, (size_t)BATCH * SIDE * SIDE * 3 * sizeof(float));
    o.window_shards = 2; /* nor is it fetched ahead */
    struct mode_stream *s;
    if (mode_stream_open(&s, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_stream_fill(s, &b[0], 0, &err), MODE_OK);
    mode_stream_close(&s);
    mode_batch_clear(&b[0]);
    mode_batch_clear(&b[1]);
    free(none);
}

static void test_a_failure_ahead_waits_for_its_turn(void **state)
{
    (void)state;
    struct mode_stream_options o = options_of(MODE_POOL_ALL);
    struct mode_stream *s = NULL;
    struct mode_ahead *ahead = NULL;
    struct mode_batch b = {0};
    const struct mode_batch *got;
    struct mode_error err = {0};
    struct mode_captions c;
    uint8_t keep[64], rubbish[64] = {0};
    uint64_t bad = 0;
    assert_int_equal(mode_captions_load(&c, world.captions[1], NULL), MODE_OK);
    off_t at = (off_t)mode_captions_row(&c, 5).image_offset + 20;
    int fd = open(world.tar[1], O_RDWR);
    assert_int_equal(pread(fd, keep, sizeof keep, at), sizeof keep);
    assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, at), sizeof rubbish);
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_OK);
    assert_int_equal(mode_batch_init(&b, BATCH, SIDE, CONTEXT, &err), MODE_OK);
    while (mode_stream_fill(s, &b, bad, &err) == MODE_OK) bad++;
    assert_int_equal(mode_ahead_open(&ahead, s, NULL, false, BATCH, SIDE, CONTEXT, 0, bad + 9, 3, &err), MODE_OK);
    for (uint64_t step = 0; step < bad; step++) assert_int_equal(mode_ahead_next(ahead, &got, &err), MODE_OK);
    struct mode_error told = {0};
    assert_int_equal(mode_ahead_next(ahead, &got, &told), err.status);
    assert_string_equal(told.text, err.text);
    mode_ahead_close(&ahead);
    assert_int_equal(pwrite(fd, keep, sizeof keep, at), sizeof keep);
    close(fd);
    mode_captions_clear(&c);
    mode_batch_clear(&b);
    mode_stream_close(&s);
}

static void test_what_does_not_belong_together_is_refused(void **state)
{
    (void)state;
    struct mode_stream *s = NULL;
    struct mode_error err = {0};
    struct mode_stream_options o = options_of(2);
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "expert 2"));

    struct mode_stream_shard swapped[WORLD_SHARDS];
    memcpy(swapped, world.shards, sizeof swapped);
    swapped[0].tar = world.captions[0]; /* a file of another size */
    o = options_of(0);
    o.shards = swapped;
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "has changed"));

    memcpy(swapped, world.shards, sizeof swapped);
    char *other = mode_path_join(world.dir, "other.safetensors");
    char digest[MODE_DIGEST_HEX] = "0000";
    struct mode_tensor t = mode_tensor_1d(world.fine[0], MODE_DTYPE_I32, WORLD_ROWS);
    struct mode_meta meta[] = {{(char *)"centres", digest}};
    t.name = "fine_id";
    assert_int_equal(mode_safetensors_write(other, &t, 1, meta, 1, &err), MODE_OK);
    swapped[0].assign = other;
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "assign again"));
    o.expert = MODE_POOL_ALL; /* nor do they match a selection */
    char *selection = world_selection(&world, "selection", (const int[]){0}, 1);
    o.selection = selection;
    assert_int_equal(mode_stream_open(&s, &o, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "assign again"));
    free(selection);
    free(other);
    assert_null(s);
}

int main(void)
{
    mode_parallel_set_threads(3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_is_the_pool_s_rows_decoded_cropped_and_tokenised),
        cmocka_unit_test(test_faces_are_blurred),
        cmocka_unit_test(test_the_number_of_threads_does_not_show),
        cmocka_unit_test(test_a_picture_that_went_bad_is_named),
        cmocka_unit_test(test_batches_read_ahead_are_the_same),
        cmocka_unit_test(test_by_windows_parts_are_the_whole),
        cmocka_unit_test(test_unpacked_shards_go_to_a_file),
        cmocka_unit_test(test_a_shard_without_rows_need_not_be_there),
        cmocka_unit_test(test_a_failure_ahead_waits_for_its_turn),
        cmocka_unit_test(test_what_does_not_belong_together_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
