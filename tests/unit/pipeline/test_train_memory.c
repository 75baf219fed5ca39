/* The memory plan of a training: peak memory stays within it under any checkpointing policies; the files are the same
 * bytes; what does not fit is refused with a hint that works. */
#include "train_world.h"

#include "base/parallel.h"
#include "base/process.h"
#include "data/decoder.h"
#include "nn/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MEASURED = false }; /* shadow memory of sanitizers counts, too */
#else
enum { MEASURED = true };
#endif

static const char MODEL[] =
    "{\"embed_dim\": 64, \"vision_cfg\": {\"image_size\": 64, \"layers\": 6, \"width\": 192, \"head_width\": 64,"
    " \"patch_size\": 8}, \"text_cfg\": {\"context_length\": 77, \"vocab_size\": 49408, \"width\": 128,"
    " \"heads\": 2, \"layers\": 6}}";
enum { BATCH = 40, STEPS = 2 };

static void on_memory(void *ctx, const struct mode_train_memory *m)
{
    *(struct mode_train_memory *)ctx = *m;
}

static enum mode_status train(struct mode_train_memory *m, const char *out, size_t memory, bool checkpoint,
                              int64_t pieces, struct mode_error *err)
{
    struct world world;
    struct mode_backend *be;
    world_open(&world);
    world_ok(mode_backend_open(&be, "cpu", err), err);
    const struct mode_train_hooks hooks = {.ctx = m, .memory = on_memory};
    struct mode_train_spec spec = world_train_spec(&world, BATCH, STEPS);
    spec.model_config = MODEL;
    spec.accumulate = pieces;
    spec.checkpoint_activations = checkpoint;
    spec.memory = memory;
    spec.dense_tokens = true; /* so that all planned memory is touched */
    spec.warmup_steps = 1;
    enum mode_status st = world_train(NULL, out, be, &spec, &hooks, err);
    mode_backend_close(&be);
    world_close(&world);
    return st;
}

/* ---- in a separate process, so that its peak is the training's ---- */

struct said {
    size_t total, peak, room;
    long long kept, lean; /* blocks */
};

static int train_alone(char **argv) /* folder, bytes, checkpoint */
{
    struct mode_train_memory m;
    struct mode_error err = {0};
    world_ok(train(&m, argv[0], strtoull(argv[1], NULL, 10), argv[2][0] == '1', 1, &err), &err);
    if (m.decoders < (size_t)1 << 20) return 1; /* the plan counts them; the peak is that of this process alone */
    printf("%zu %llu %zu %lld %lld\n", m.total - m.decoders, (unsigned long long)mode_process_peak_rss(getpid()),
           m.room - m.decoders, (long long)(m.model.blocks.image[MODE_CLIP_KEEP] + m.model.blocks.text[MODE_CLIP_KEEP]),
           (long long)(m.model.blocks.image[MODE_CLIP_LEAN] + m.model.blocks.text[MODE_CLIP_LEAN]));
    return 0;
}

static char root[] = "/tmp/mode-train-memory-XXXXXX";

static size_t decoders(void)
{
    return (size_t)mode_parallel_threads() * MODE_DECODER_BYTES;
}

/* memory: for the process without its decoders; 0: no limit. */
static struct said run(const char *name, size_t memory, bool checkpoint)
{
    if (memory) memory += decoders();
    char self[512], line[256] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    struct said s;
    assert_true(n > 0);
    self[n] = '\0';
    char *command = mode_xasprintf("'%s' --train %s/%s %zu %d", self, root, name, memory, checkpoint);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    if (!fgets(line, sizeof line, f) || pclose(f) != 0 ||
        sscanf(line, "%zu %zu %zu %lld %lld", &s.total, &s.peak, &s.room, &s.kept, &s.lean) != 5)
        fail_msg("%s: \"%s\"", command, line);
    printf("%-10s said %6.1f MiB, peak %6.1f MiB, %lld blocks kept, %lld lean\n", name, (double)s.total / 1048576,
           (double)s.peak / 1048576, s.kept, s.lean);
    assert_true(s.total <= s.room);
    if (MEASURED) assert_true((double)s.peak <= 1.05 * (double)s.total && (double)s.peak >= 0.85 * (double)s.total);
    free(command);
    return s;
}

static void test_what_is_said_holds_and_shows_in_no_file(void **state)
{
    static const char *const names[] = {"all", "some", "lean", "few", "checkpoint"};
    (void)state;
    const struct said all = run("all", 0, false), checkpoint = run("checkpoint", 0, true);
    assert_true(all.kept == 12 && checkpoint.kept == 0 && checkpoint.lean == 0);
    assert_true(checkpoint.total < all.total * 3 / 4);
    const size_t span = all.total - checkpoint.total;
    const struct said some = run("some", all.total - span / 6, false), lean = run("lean", all.total - span / 3, false),
                      few = run("few", checkpoint.total + span / 10, false);
    assert_true(some.kept > 0 && some.lean > 0 && lean.kept < some.kept && lean.lean > 0);
    assert_true(few.kept < lean.kept && few.kept + few.lean < 12);
    for (size_t k = 1; k < sizeof names / sizeof *names; k++)
        for (int i = 0; i < WORLD_FILES; i++) {
            char a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX],
                *x = mode_xasprintf("%s/all/%s", root, world_files[i]),
                *y = mode_xasprintf("%s/%s/%s", root, names[k], world_files[i]);
            struct mode_error err;
            world_ok(mode_digest_file(x, a, NULL, &err), &err);
            world_ok(mode_digest_file(y, b, NULL, &err), &err);
            assert_string_equal(a, b);
            free(x);
            free(y);
        }
}

static void test_what_does_not_fit_is_refused_with_a_remedy(void **state)
{
    struct mode_train_memory m;
    struct mode_error err = {0};
    char *out = mode_xasprintf("%s/refused", root), *hint;
    (void)state;
    assert_int_equal(train(&m, out, 1, false, 1, &err), MODE_E_MEMORY);
    if (!strstr(err.text, "a smaller batch or a smaller model")) fail_msg("%s", err.text);
    const size_t least = m.total, enough = least - m.model.activations / 3;
    assert_true(m.model.blocks.image[MODE_CLIP_CHECKPOINT] == 6 && m.model.blocks.text[MODE_CLIP_CHECKPOINT] == 6);
    assert_int_equal(train(&m, out, enough, false, 1, &err), MODE_E_MEMORY);
    hint = strstr(err.text, "--accumulate ");
    if (!strstr(err.text, "host memory") || !hint) fail_msg("%s", err.text);
    const int64_t pieces = strtol(hint + strlen("--accumulate "), NULL, 10);
    assert_true(pieces > 1 && pieces <= BATCH);
    /* the limit that leaves the same bytes for the model, given what this process holds by then */
    const size_t room = enough - m.program, more = (size_t)(MEASURED ? 2 : 64) << 20;
    assert_int_equal(train(&m, out, 1, false, 1, &err), MODE_E_MEMORY);
    const size_t bytes = room + m.program + more;
    assert_int_equal(train(&m, out, bytes - 2 * more, false, 1, &err), MODE_E_MEMORY);
    if (train(&m, out, bytes, false, pieces, &err)) fail_msg("%s", err.text);
    assert_true(m.total <= bytes && m.model.total < least);
    free(out);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return mode_dir_remove(root, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_said_holds_and_shows_in_no_file),
        cmocka_unit_test(test_what_does_not_fit_is_refused_with_a_remedy),
    };
    if (argc == 5 && strcmp(argv[1], "--train") == 0) return train_alone(argv + 2);
    return cmocka_run_group_tests(tests, setup, teardown);
}
