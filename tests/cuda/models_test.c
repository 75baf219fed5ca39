/* Commands on the cuda backend of a machine without a GPU: a training that moves between GPU and CPU by its
 * checkpoints, graphs, pictures resized on the GPU, features, and too little memory. */
#include "train_world.h"

#include "models/clip_train.h"
#include "nn/backend.h"
#include "nn/pixels.h"
#include "pipeline/encode.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { TOTAL = 12 }; /* steps */

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    if (mode_backend_open(&be, name, &err) != MODE_OK) fail_msg("%s", err.text);
    return be;
}

static struct world world;
static int64_t accumulate = 1;
static bool no_graphs, no_streams;

struct run {
    struct world_training t;
    struct mode_train_memory memory;
    struct mode_train_result result;
};

static void on_memory(void *ctx, const struct mode_train_memory *m)
{
    ((struct run *)ctx)->memory = *m;
}

static enum mode_status train(struct run *r, const char *backend, uint64_t stop_at, struct mode_error *err)
{
    struct mode_backend *be = open_backend(backend);
    char *dir = mode_path_join(world.dir, r->t.run), *from = r->t.last ? mode_xstrdup(r->t.last) : NULL;
    struct mode_train_spec spec = world_train_spec(&world, 10, TOTAL);
    spec.accumulate = accumulate;
    spec.no_graphs = no_graphs;
    spec.no_streams = no_streams;
    spec.grad_clip_norm = 0.5;
    r->t.world = &world;
    r->t.stop_at = stop_at;
    struct mode_train_hooks hooks = world_train_hooks(&r->t);
    hooks.memory = on_memory;
    hooks.resume_from = from;
    enum mode_status st = world_train(&r->result, dir, be, &spec, &hooks, err);
    free(dir);
    free(from);
    mode_backend_close(&be);
    return st;
}

static double loss_of(const struct run *r, int row)
{
    char *path = mode_xasprintf("%s/%s/%s", world.dir, r->t.run, MODE_FILE_STEPS), line[1024];
    FILE *f = fopen(path, "r");
    double loss = NAN;
    assert_non_null(f);
    for (int i = 0; i <= row; i++) assert_non_null(fgets(line, sizeof line, f));
    json_t *o = json_loads(line, 0, NULL);
    loss = json_number_value(json_object_get(o, "loss"));
    json_decref(o);
    fclose(f);
    free(path);
    return loss;
}

static double distance(const struct mode_tensor *a, const struct mode_tensor *b)
{
    double diff = 0, size = 0;
    for (int64_t j = 0; j < mode_tensor_count(a); j++) {
        double x = mode_f32(a)[j], y = mode_f32(b)[j];
        diff += (x - y) * (x - y);
        size += y * y;
    }
    return size > 0 ? sqrt(diff / size) : sqrt(diff);
}

static void test_a_training_moves_between_gpu_and_cpu(void **state)
{
    struct run stays = {.t.run = "stays"}, moves = {.t.run = "moves"};
    struct mode_error err = {0};
    struct mode_safetensors a, b;
    (void)state;
    world_ok(train(&stays, "cpu", 0, &err), &err);
    assert_int_equal(train(&moves, "cuda", 4, &err), MODE_E_STOPPED);
    assert_int_equal(train(&moves, "cpu", 8, &err), MODE_E_STOPPED);
    world_ok(train(&moves, "cuda", 0, &err), &err);
    for (int i = 0; i < TOTAL; i++) {
        double loss = loss_of(&moves, i), want = loss_of(&stays, i);
        if (!(fabs(loss - want) < 1e-4 * want)) fail_msg("step %d: loss %.9g, on the cpu %.9g", i, loss, want);
    }
    char *x = mode_xasprintf("%s/stays/%s", world.dir, MODE_FILE_CLIP_WEIGHTS);
    char *y = mode_xasprintf("%s/moves/%s", world.dir, MODE_FILE_CLIP_WEIGHTS);
    world_ok(mode_safetensors_open(&a, x, &err), &err);
    world_ok(mode_safetensors_open(&b, y, &err), &err);
    assert_int_equal(a.n_tensors, b.n_tensors);
    for (size_t i = 0; i < a.n_tensors; i++) {
        const struct mode_tensor *t = mode_safetensors_find(&b, a.tensors[i].name);
        assert_non_null(t);
        if (!(distance(t, &a.tensors[i]) < 2e-3))
            fail_msg("%s is %.3g away from the cpu's", t->name, distance(t, &a.tensors[i]));
    }
    mode_safetensors_close(&a);
    mode_safetensors_close(&b);
    free(x);
    free(y);
    free(stays.t.last);
    free(moves.t.last);
}

static void assert_same_files(const struct run *a, const struct run *b)
{
    static const char *const files[] = {MODE_FILE_CLIP_WEIGHTS, MODE_FILE_CLIP_OPTIMIZER, MODE_FILE_STEPS};
    struct mode_error err = {0};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char hex[2][MODE_DIGEST_HEX], *path[] = {mode_xasprintf("%s/%s/%s", world.dir, a->t.run, files[i]),
                                                 mode_xasprintf("%s/%s/%s", world.dir, b->t.run, files[i])};
        for (int k = 0; k < 2; k++) world_ok(mode_digest_file(path[k], hex[k], NULL, &err), &err);
        assert_string_equal(hex[0], hex[1]);
        for (int k = 0; k < 2; k++) free(path[k]);
    }
}

/* Graphs replayed, stopped in between or refused change no file, nor do streams; why graphs are not used is said once.
 */
static void test_graphs_show_in_no_file(void **state)
{
    struct run graphs = {.t.run = "graphs"}, plain = {.t.run = "plain"}, stopped = {.t.run = "stopped"},
               refused = {.t.run = "refused"}, pieces = {.t.run = "pieces"}, stream = {.t.run = "stream"};
    struct mode_error err = {0};
    (void)state;
    world_ok(train(&graphs, "cuda", 0, &err), &err);
    no_graphs = true;
    world_ok(train(&plain, "cuda", 0, &err), &err);
    no_graphs = false;
    assert_int_equal(train(&stopped, "cuda", 7, &err), MODE_E_STOPPED);
    world_ok(train(&stopped, "cuda", 0, &err), &err);
    setenv("MODE_EMULATOR_CAPTURE", "refused", 1);
    world_ok(train(&refused, "cuda", 0, &err), &err);
    unsetenv("MODE_EMULATOR_CAPTURE");
    no_streams = true;
    world_ok(train(&stream, "cuda", 0, &err), &err);
    no_streams = false;
    assert_true(graphs.memory.model.branches && !stream.memory.model.branches);
    assert_same_files(&graphs, &plain);
    assert_same_files(&graphs, &stream);
    assert_same_files(&graphs, &stopped);
    assert_same_files(&graphs, &refused);
    assert_int_equal(graphs.t.notices + plain.t.notices + stopped.t.notices, 0);
    assert_int_equal(refused.t.notices, 1);
    if (!strstr(refused.t.notice, "does not record")) fail_msg("%s", refused.t.notice);
    accumulate = 2;
    assert_int_equal(train(&pieces, "cuda", 3, &err), MODE_E_STOPPED);
    accumulate = 1;
    assert_int_equal(pieces.t.notices, 1);
    if (!strstr(pieces.t.notice, "in pieces")) fail_msg("%s", pieces.t.notice);
    free(stopped.t.last);
    free(pieces.t.last);
}

/* Pixels resized by host and device are bit-identical, so training on them is too: also with micro-batches, and where
 * the device lacks memory for the pictures. */
static void test_it_does_not_show_where_pictures_are_resized(void **state)
{
    struct run there = {.t.run = "there"}, here = {.t.run = "here"};
    struct mode_error err = {0};
    (void)state;
    for (accumulate = 1; accumulate <= 2; accumulate++) {
        setenv("MODE_CUDA_PIXELS", "host", 1);
        world_ok(train(&here, "cuda", 0, &err), &err);
        assert_false(here.result.device_pixels);
        unsetenv("MODE_CUDA_PIXELS");
        world_ok(train(&there, "cuda", 0, &err), &err);
        assert_true(there.result.device_pixels);
        assert_int_equal(there.result.host_resized, 0);
        assert_same_files(&here, &there);
        free(here.t.last);
        free(there.t.last);
        here.t.last = there.t.last = NULL;
    }
    accumulate = 1;
}

/* A damaged picture ends the training with the same message, and no worker hangs. */
static void test_a_damaged_picture_is_told_as_on_the_host(void **state)
{
    struct run r = {.t.run = "damaged"};
    struct mode_error told[2] = {0};
    struct mode_captions c;
    uint8_t keep[64], rubbish[64] = {0};
    (void)state;
    world_ok(mode_captions_load(&c, world.captions[1], told), told);
    const off_t at = (off_t)mode_captions_row(&c, 5).image_offset + 20;
    int fd = open(world.tar[1], O_RDWR);
    assert_int_equal(pread(fd, keep, sizeof keep, at), sizeof keep);
    assert_int_equal(pwrite(fd, rubbish, sizeof rubbish, at), sizeof rubbish);
    for (int k = 0; k < 2; k++) {
        if (k == 0) setenv("MODE_CUDA_PIXELS", "host", 1);
        assert_int_equal(train(&r, "cuda", 0, &told[k]), MODE_E_FORMAT);
        assert_int_equal(r.result.device_pixels, k);
        free(r.t.last);
        r.t.last = NULL;
        unsetenv("MODE_CUDA_PIXELS");
    }
    assert_string_equal(told[0].text, told[1].text);
    assert_non_null(strstr(told[1].text, mode_captions_row(&c, 5).key));
    assert_int_equal(pwrite(fd, keep, sizeof keep, at), sizeof keep);
    close(fd);
    mode_captions_clear(&c);
}

/* A model's features of pictures, in batches of two, whole and with one of them damaged. */
static void test_it_does_not_show_in_features(void **state)
{
    enum { N = 5, E = 16 };
    struct mode_backend *be = open_backend("cuda");
    struct mode_clip *clip;
    struct mode_error err = {0}, told[2];
    struct mode_encode_picture p[N];
    float out[2][N * E];
    (void)state;
    world_ok(mode_clip_create(&clip, be, WORLD_MODEL, WORLD_PREPROCESS, 3, &err), &err);
    for (int i = 0; i < N; i++) {
        p[i] = (struct mode_encode_picture){.name = i == 3 ? "the fourth" : "another"};
        p[i].data = world_png(i % 4, (uint64_t)i, 20 + 9 * i, &p[i].size);
    }
    for (int k = 0; k < 2; k++) {
        if (k == 0) setenv("MODE_CUDA_PIXELS", "host", 1);
        world_ok(mode_encode_pictures(clip, out[k], p, N, 2, false, NULL, &err), &err);
        struct mode_encode_picture keep = p[3];
        p[3].size /= 2;
        float rest[N * E];
        assert_int_equal(mode_encode_pictures(clip, rest, p, N, 2, false, NULL, &told[k]), MODE_E_FORMAT);
        assert_memory_equal(rest, out[k], 2 * E * sizeof *rest); /* the batch before it */
        p[3] = keep;
        unsetenv("MODE_CUDA_PIXELS");
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_string_equal(told[0].text, told[1].text);
    assert_non_null(strstr(told[1].text, "the fourth"));
    for (int i = 0; i < N; i++) free((void *)(uintptr_t)p[i].data);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static void keep_text(void *ctx, const char *text)
{
    snprintf(ctx, 256, "%s", text);
}

/* A GPU too small for pictures in flight: the host resizes, says so, and the results are the same. */
static void test_features_on_a_small_gpu(void **state)
{
    enum { N = 3, E = 16 };
    struct mode_error err = {0};
    struct mode_encode_picture p[N];
    float out[2][N * E];
    char said[2][256] = {"", ""};
    (void)state;
    for (int i = 0; i < N; i++) {
        p[i] = (struct mode_encode_picture){.name = "one"};
        p[i].data = world_png(i, (uint64_t)i, 30 + 9 * i, &p[i].size);
    }
    for (int k = 0; k < 2; k++) {
        struct mode_clip *clip;
        const struct mode_encode_hook hook = {.ctx = said[k], .notice = keep_text};
        if (k == 1) setenv("MODE_EMULATOR_MEMORY", "70000000", 1);
        struct mode_backend *be = open_backend("cuda");
        world_ok(mode_clip_create(&clip, be, WORLD_MODEL, WORLD_PREPROCESS, 3, &err), &err);
        world_ok(mode_encode_pictures(clip, out[k], p, N, 2, false, &hook, &err), &err);
        mode_clip_close(&clip);
        mode_backend_close(&be);
        unsetenv("MODE_EMULATOR_MEMORY");
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_string_equal(said[0], "");
    if (!strstr(said[1], "pictures are resized by the host: ")) fail_msg("\"%s\"", said[1]);
    for (int i = 0; i < N; i++) free((void *)(uintptr_t)p[i].data);
}

/* A GPU on which so many bytes are free for a training; m: the figures on the usual one. */
static void set_room(size_t bytes, const struct mode_train_memory *m)
{
    const size_t usual = (size_t)8 << 30, taken = m->model.parameters + m->model.copies;
    const size_t beside = usual - (m->room - taken) / 31 * 32; /* one part in 32 is left free */
    char text[32];
    snprintf(text, sizeof text, "%zu", beside + (bytes - taken) / 31 * 32 + 64);
    setenv("MODE_EMULATOR_MEMORY", text, 1);
}

/* One step, and its memory plan. */
static enum mode_status first_step(struct run *r, struct mode_error *err)
{
    r->t.seen = 0;
    free(r->t.last);
    r->t.last = NULL;
    return train(r, "cuda", 1, err);
}

static void test_towers_go_one_after_the_other_where_both_have_no_room(void **state)
{
    struct run r = {.t.run = "narrow"};
    struct mode_error err = {0};
    (void)state;
    setenv("MODE_CUDA_PIXELS", "host", 1); /* without pictures on the GPU */
    assert_int_equal(first_step(&r, &err), MODE_E_STOPPED);
    const struct mode_train_memory m = r.memory;
    const size_t both = m.total;
    assert_true(m.model.branches);
    set_room(both + 65536, &m); /* allocations have a little padding */
    assert_int_equal(first_step(&r, &err), MODE_E_STOPPED);
    if (!r.memory.model.branches || r.memory.total != both)
        fail_msg("%zu bytes planned in a room of %zu, want %zu", r.memory.total, r.memory.room, both);
    set_room(both - 65536, &m);
    assert_int_equal(first_step(&r, &err), MODE_E_STOPPED);
    assert_true(!r.memory.model.branches && r.memory.total < both - 65536);
    unsetenv("MODE_EMULATOR_MEMORY");
    unsetenv("MODE_CUDA_PIXELS");
    free(r.t.last);
}

/* A GPU that is too small is reported before the first step, with a remedy that works. */
static void test_a_training_that_does_not_fit_is_refused_with_a_remedy(void **state)
{
    struct run r = {.t.run = "small"};
    struct mode_error err = {0};
    (void)state;
    setenv("MODE_CUDA_PIXELS", "host", 1); /* without pictures on the GPU */
    no_streams = true;
    assert_int_equal(first_step(&r, &err), MODE_E_STOPPED);
    no_streams = false;
    assert_int_equal(r.memory.pictures, 0);
    /* one block per tower: recomputing it saves nothing */
    const struct mode_train_memory m = r.memory;
    set_room(m.total - m.model.activations / 3, &m);
    assert_int_equal(first_step(&r, &err), MODE_E_MEMORY);
    assert_int_equal(r.t.seen, 0);
    if (!strstr(err.text, "--accumulate 2 (")) fail_msg("%s", err.text);
    accumulate = 2;
    assert_int_equal(train(&r, "cuda", 1, &err), MODE_E_STOPPED);
    accumulate = 1;
    set_room(3 * m.model.parameters, &m);
    assert_int_equal(train(&r, "cuda", 1, &err), MODE_E_MEMORY);
    if (!strstr(err.text, "a smaller batch or a smaller model")) fail_msg("%s", err.text);
    setenv("MODE_EMULATOR_MEMORY", "1000000", 1); /* not even the parameters */
    assert_int_equal(train(&r, "cuda", 1, &err), MODE_E_MEMORY);
    unsetenv("MODE_EMULATOR_MEMORY");
    assert_int_equal(r.t.notices, 1); /* about micro-batches */
    unsetenv("MODE_CUDA_PIXELS");
    free(r.t.last);
}

/* Pixels are staged in the device's scratch: the plan includes it, so that no step allocates. */
static void test_the_plan_has_room_for_the_pixels_of_a_step(void **state)
{
    static const char cfg[] =
        "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 224, \"patch_size\": 32, \"width\": 16,"
        " \"layers\": 1, \"head_width\": 8}, \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23,"
        " \"width\": 12, \"heads\": 3, \"layers\": 1}}";
    struct mode_backend *be = open_backend("cuda");
    struct mode_clip *clip;
    struct mode_clip_memory m;
    struct mode_error err;
    size_t picture = (size_t)3 * 224 * 224 * sizeof(float);
    (void)state;
    assert_int_equal(mode_clip_create(&clip, be, cfg, NULL, 5, &err), MODE_OK);
    mode_clip_memory(&m, clip, 1024);
    assert_true(m.workspace >= 1024 * picture);
    mode_clip_set_memory(clip, 4, false);
    mode_clip_memory(&m, clip, 1024);
    assert_true(m.workspace >= 256 * picture && m.workspace < 1024 * picture);
    mode_clip_set_branches(clip, false);
    mode_clip_set_pictures(clip, true); /* the picture buffers do not grow with the batch */
    mode_clip_memory(&m, clip, 1024);
    assert_true(m.workspace >= MODE_PIXELS_BETWEEN && m.workspace < 256 * picture);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

/* The same for attention's backward workspace in bf16: the GEMM results of every head. */
static void test_the_plan_has_room_for_attention(void **state)
{
    static const char cfg[] =
        "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 224, \"patch_size\": 16, \"width\": 64,"
        " \"layers\": 1, \"head_width\": 16}, \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23,"
        " \"width\": 12, \"heads\": 3, \"layers\": 1}}";
    struct mode_backend *be = open_backend("cuda-bf16");
    struct mode_clip *clip;
    struct mode_clip_memory m;
    struct mode_error err;
    (void)state;
    world_ok(mode_clip_create(&clip, be, cfg, NULL, 5, &err), &err);
    mode_clip_set_branches(clip, false);
    mode_clip_set_pictures(clip, true); /* or pixels would need more */
    mode_clip_memory(&m, clip, 512);
    assert_true(m.workspace >= (size_t)512 * 4 * 256 * 256 * 2); /* 197 tokens in four tiles of 64 */
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

/* The plan includes pictures in flight and resizing. Where there is no memory for them the host resizes, and says so;
 * the files are the same. */
static void test_the_plan_counts_the_pictures_of_a_step(void **state)
{
    struct run enough = {.t.run = "enough"}, little = {.t.run = "little"}, host = {.t.run = "host"};
    struct mode_error err = {0};
    (void)state;
    no_streams = true; /* or streams would be dropped first */
    assert_int_equal(train(&enough, "cuda", 1, &err), MODE_E_STOPPED);
    free(enough.t.last);
    enough.t.last = NULL;
    const struct mode_train_memory m = enough.memory;
    assert_true(m.pictures > 0 && m.total == m.model.total + m.pictures && m.model.workspace >= MODE_PIXELS_BETWEEN);
    const size_t room = m.total > 2 * m.pictures ? m.total : 2 * m.pictures;
    set_room(room, &m);
    world_ok(train(&enough, "cuda", 0, &err), &err);
    assert_true(enough.result.device_pixels && enough.memory.room < room + 256);
    assert_int_equal(enough.memory.total, m.total);
    assert_int_equal(enough.t.notices, 0);
    set_room(room - (1 << 20), &m);
    world_ok(train(&little, "cuda", 0, &err), &err);
    unsetenv("MODE_EMULATOR_MEMORY");
    assert_false(little.result.device_pixels);
    assert_int_equal(little.memory.pictures, 0);
    assert_int_equal(little.t.notices, 1);
    if (!strstr(little.t.notice, "pictures are resized by the host: ")) fail_msg("%s", little.t.notice);
    setenv("MODE_CUDA_PIXELS", "host", 1); /* requested, so nothing is said */
    world_ok(train(&host, "cuda", 0, &err), &err);
    unsetenv("MODE_CUDA_PIXELS");
    assert_int_equal(host.t.notices, 0);
    assert_same_files(&enough, &little);
    assert_same_files(&enough, &host);
    no_streams = false;
}

static enum mode_status plan_of(struct mode_train_memory *m, double window, bool checkpoint, size_t memory,
                                struct mode_error *err)
{
    static const char cfg[] =
        "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 64, \"patch_size\": 8, \"width\": 64,"
        " \"layers\": 6, \"head_width\": 16}, \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 23,"
        " \"width\": 12, \"heads\": 3, \"layers\": 1}}";
    const struct mode_train_spec spec = {
        .name = "planned", .checkpoint_activations = checkpoint, .memory = memory, .no_streams = true};
    struct mode_backend *be = open_backend("cuda");
    struct mode_clip *clip;
    world_ok(mode_clip_create(&clip, be, cfg, NULL, 5, err), err);
    const enum mode_status st = mode_train_memory_plan(m, clip, be, &spec, 256, 3, window, err);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    return st;
}

static struct mode_train_memory plan(double window, bool checkpoint)
{
    struct mode_train_memory m;
    struct mode_error err;
    world_ok(plan_of(&m, window, checkpoint, 0, &err), &err);
    return m;
}

/* --memory is an exact limit, not a reservation: if less is free, that counts. */
static void test_memory_that_is_given_is_a_limit(void **state)
{
    const struct mode_train_memory least = plan(0, true);
    struct mode_train_memory m;
    struct mode_error err;
    (void)state;
    world_ok(plan_of(&m, 0, true, least.total, &err), &err);
    assert_true(m.room == least.total && m.total == least.total);
    assert_int_equal(plan_of(&m, 0, true, least.total - 1, &err), MODE_E_MEMORY);
    if (!strstr(err.text, "(--memory). HINT: --memory ")) fail_msg("%s", err.text);
    world_ok(plan_of(&m, 0, true, 2 * least.room, &err), &err);
    assert_int_equal(m.room, least.room);
    set_room(least.total - (1 << 20), &least); /* then the message names no limit */
    assert_int_equal(plan_of(&m, 0, true, least.total - (2 << 20), &err), MODE_E_MEMORY);
    unsetenv("MODE_EMULATOR_MEMORY");
    if (strstr(err.text, "HINT: --memory ")) fail_msg("%s", err.text);
}

/* Activation checkpointing comes before resizing on the host, as long as the model fits beside the pictures. */
static void test_pictures_come_before_activations(void **state)
{
    const struct mode_train_memory all = plan(1000, false), least = plan(1000, true), host = plan(0, true);
    (void)state;
    assert_true(all.pictures > 0 && all.model.again == 0 && !all.why_host[0] && host.pictures == 0);
    set_room(all.total - all.pictures / 2, &all);
    const struct mode_train_memory some = plan(1000, false);
    assert_true(some.pictures == all.pictures && some.model.again > 0 && some.total <= some.room && !some.why_host[0]);
    assert_true(host.total < least.total - (2 << 20) && 2 * all.pictures < host.total);
    set_room(least.total - (1 << 20), &all);
    const struct mode_train_memory none = plan(1000, false);
    assert_true(none.pictures == 0 && none.total <= none.room);
    if (!strstr(none.why_host, "pictures are resized by the host: ")) fail_msg("%s", none.why_host);
    unsetenv("MODE_EMULATOR_MEMORY");
}

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_training_moves_between_gpu_and_cpu),
        cmocka_unit_test(test_graphs_show_in_no_file),
        cmocka_unit_test(test_it_does_not_show_where_pictures_are_resized),
        cmocka_unit_test(test_a_damaged_picture_is_told_as_on_the_host),
        cmocka_unit_test(test_it_does_not_show_in_features),
        cmocka_unit_test(test_features_on_a_small_gpu),
        cmocka_unit_test(test_towers_go_one_after_the_other_where_both_have_no_room),
        cmocka_unit_test(test_a_training_that_does_not_fit_is_refused_with_a_remedy),
        cmocka_unit_test(test_the_plan_has_room_for_the_pixels_of_a_step),
        cmocka_unit_test(test_the_plan_has_room_for_attention),
        cmocka_unit_test(test_the_plan_counts_the_pictures_of_a_step),
        cmocka_unit_test(test_pictures_come_before_activations),
        cmocka_unit_test(test_memory_that_is_given_is_a_limit),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
