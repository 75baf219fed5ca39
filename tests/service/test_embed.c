/* The work function of embed, as a worker calls it, with a tiny encoder: captions, classes, retrieval, refusals. */
#include "clip_world.h"
#include "held_outputs.h"
#include "tiny_bert.h"

#include "data/evalset.h"
#include "embed.h"
#include "models/bert.h"
#include "msg/code_version.h"
#include "msg/runtime.h"
#include "msg/worker.h"
#include "nn/backend.h"
#include "proto/embed.pb-c.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct world world;
static char *encoder, *out_dir, *out_path;
static char id[MODE_ENCODER_ID];

static Mode__EmbedRequest request(void)
{
    Mode__EmbedRequest r = MODE__EMBED_REQUEST__INIT;
    r.encoder_dir = encoder;
    r.encoder_id = id;
    r.pooling = (char *)"mean";
    r.max_tokens = 16;
    return r;
}

static enum mode_status run(const Mode__EmbedRequest *r, const char *captions, struct mode_local_report *report,
                            struct mode_error *err)
{
    struct mode_local_input in = {"captions", captions};
    size_t size = mode__embed_request__get_packed_size(r);
    uint8_t *packed = mode_xmalloc(size);
    mode__embed_request__pack(r, packed);
    remove(out_path);
    enum mode_status st = mode_job_run_local(report, embed_work, packed, size, &in, captions != NULL, out_dir, err);
    free(packed);
    return st;
}

static void encode(float *x, const char *const *texts, size_t n)
{
    struct mode_error err = {0};
    struct mode_backend *be;
    struct mode_text_encoder *enc;
    world_ok(mode_backend_open(&be, "cpu", &err), &err);
    world_ok(mode_text_encoder_open(&enc, be, encoder, "mean", 16, &err), &err);
    world_ok(mode_text_encoder_encode(enc, x, texts, n, NULL, NULL, &err), &err);
    mode_text_encoder_close(&enc);
    mode_backend_close(&be);
}

/* Output's feat is [n, TINY_WIDTH]; compares its rows with want; tolerance 0: bit-identical. */
static void check_rows(const float *want, int64_t n, double tolerance, const char *source)
{
    struct mode_error err = {0};
    struct mode_safetensors f;
    const struct mode_tensor *feat;
    const int64_t dim[] = {n, TINY_WIDTH};
    world_ok(mode_safetensors_open(&f, out_path, &err), &err);
    world_ok(mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, dim, &feat, &err), &err);
    assert_string_equal(mode_safetensors_meta(&f, "encoder_id"), id);
    assert_string_equal(mode_safetensors_meta(&f, "source"), source);
    for (int64_t i = 0; i < n * TINY_WIDTH; i++)
        if (!(fabs((double)mode_f32(feat)[i] - want[i]) <= tolerance))
            fail_msg("row %d differs", (int)(i / TINY_WIDTH));
    mode_safetensors_close(&f);
}

static void test_captions(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_local_report report = {0};
    struct mode_captions c;
    Mode__EmbedRequest r = request();
    char digest[MODE_DIGEST_HEX];
    const char *texts[WORLD_ROWS];
    float want[WORLD_ROWS * TINY_WIDTH];
    world_ok(run(&r, world.captions[0], &report, &err), &err);
    assert_int_equal(report.rows_in, WORLD_ROWS);
    assert_int_equal(report.rows_out, WORLD_ROWS);
    free(report.note);
    held_file("embed", "captions/feat.safetensors", out_path, world.dir, 1e-5);
    world_ok(mode_captions_load(&c, world.captions[0], &err), &err);
    for (uint32_t i = 0; i < c.n_rows; i++) texts[i] = mode_captions_row(&c, i).caption;
    encode(want, texts, c.n_rows);
    world_ok(mode_digest_file(world.captions[0], digest, NULL, &err), &err);
    check_rows(want, c.n_rows, 0, digest);
    mode_captions_clear(&c);
}

static void test_classes_are_unit_means_over_templates(void **state)
{
    (void)state;
    struct mode_error err = {0};
    Mode__EmbedRequest r = request();
    char digest[MODE_DIGEST_HEX], *prompts[8];
    float x[8 * TINY_WIDTH], want[4 * TINY_WIDTH];
    r.task_dir = world_write_task(&world, false);
    world_ok(mode_evalset_words_digest(r.task_dir, digest, &err), &err);
    r.task_digest = digest;
    world_ok(run(&r, NULL, NULL, &err), &err);
    held_file("embed", "words/feat.safetensors", out_path, world.dir, 1e-5);
    for (int c = 0; c < 4; c++) {
        prompts[2 * c] = mode_xasprintf("a %s square", world_colours[c]);
        prompts[2 * c + 1] = mode_xasprintf("a picture of %s", world_colours[c]);
    }
    encode(x, (const char *const *)prompts, 8);
    for (int c = 0; c < 4; c++) {
        double squares = 0;
        for (int k = 0; k < TINY_WIDTH; k++) {
            double mean = ((double)x[2 * c * TINY_WIDTH + k] + x[(2 * c + 1) * TINY_WIDTH + k]) / 2;
            want[c * TINY_WIDTH + k] = (float)mean;
            squares += mean * mean;
        }
        for (int k = 0; k < TINY_WIDTH; k++) want[c * TINY_WIDTH + k] /= (float)sqrt(squares);
    }
    check_rows(want, 4, 1e-6, digest);
    digest[0] = digest[0] == '0' ? '1' : '0'; /* planned with other words */
    assert_int_equal(run(&r, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "words changed"));
    assert_false(mode_file_exists(out_path));
    for (int i = 0; i < 8; i++) free(prompts[i]);
    free(r.task_dir);
}

static void test_retrieval_captions(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_evalset e;
    Mode__EmbedRequest r = request();
    char digest[MODE_DIGEST_HEX];
    r.task_dir = world_write_task(&world, true);
    world_ok(mode_evalset_words_digest(r.task_dir, digest, &err), &err);
    world_ok(run(&r, NULL, NULL, &err), &err);
    held_file("embed", "retrieval/feat.safetensors", out_path, world.dir, 1e-5);
    world_ok(mode_evalset_open(&e, r.task_dir, &err), &err);
    assert_int_equal(e.n_texts, 24);
    float *want = malloc(24 * TINY_WIDTH * sizeof *want);
    encode(want, (const char *const *)e.texts, 24);
    check_rows(want, 24, 0, digest);
    free(want);
    mode_evalset_close(&e);
    free(r.task_dir);
}

/* Words without a task, as they are. */
static void test_texts_of_the_request(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_local_report report = {0};
    char digest[MODE_DIGEST_HEX], *texts[] = {(char *)"a red kite", (char *)"rook"};
    Mode__EmbedRequest r = request();
    r.texts = texts;
    r.n_texts = 2;
    if (run(&r, NULL, &report, &err)) fail_msg("%s", err.text);
    assert_int_equal(report.rows_out, 2);
    float want[2 * TINY_WIDTH];
    encode(want, (const char *const *)texts, 2);
    mode_digest_bytes("a red kite\nrook\n", 16, digest);
    check_rows(want, 2, 0, digest);
    r.task_dir = world.dir;
    assert_int_equal(run(&r, NULL, NULL, &err), MODE_E_VALUE); /* either */
    free(report.note);
}

static void test_another_encoder_is_refused(void **state)
{
    (void)state;
    struct mode_error err = {0};
    Mode__EmbedRequest r = request();
    r.encoder_id = (char *)"bert:0000000000000000:mean:16";
    assert_int_equal(run(&r, world.captions[0], NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, id));
    assert_non_null(strstr(err.text, r.encoder_id));
    assert_false(mode_file_exists(out_path));
    r = request();
    assert_int_equal(run(&r, NULL, NULL, &err), MODE_E_VALUE); /* neither captions nor task */
    r.task_dir = world.dir;
    assert_int_equal(run(&r, world.captions[0], NULL, &err), MODE_E_VALUE); /* both */
    r = request();
    r.encoder_dir = (char *)"/nonexistent";
    assert_int_equal(run(&r, world.captions[0], NULL, &err), MODE_E_NOINPUT);
}

static void put_task(struct mode_store *store, char key[MODE_DIGEST_HEX], const Mode__EmbedRequest *r,
                     const char *captions)
{
    struct mode_error err = {0};
    Mode__TaskSpec spec = MODE__TASK_SPEC__INIT;
    Mode__Input in = MODE__INPUT__INIT, *ins = &in;
    char digest[MODE_DIGEST_HEX], code[128], *copy = mode_xasprintf("%s/tmp/copy", mode_store_root(store));
    uint8_t packed[512];
    world_ok(mode_file_copy(captions, copy, false, &err), &err);
    world_ok(mode_store_put_blob(store, digest, &in.size, copy, &err), &err);
    mode_code_version(code, sizeof code, "embed");
    in.name = (char *)"captions";
    in.digest = digest;
    spec.service = (char *)"embed";
    spec.code_version = code;
    spec.request.len = mode__embed_request__pack(r, packed);
    spec.request.data = packed;
    spec.inputs = &ins;
    spec.n_inputs = 1;
    world_ok(mode_store_task_put(store, key, &spec, &err), &err);
    free(copy);
}

/* The parameters of the request are honoured, or the request is refused. */
static void test_a_precision_that_is_not_here_is_refused(void **state)
{
    (void)state;
    struct mode_error err = {0};
    Mode__EmbedRequest r = request();
    r.precision = (char *)"bf16";
    assert_int_equal(run(&r, world.captions[0], NULL, &err), MODE_E_DEVICE);
    assert_non_null(strstr(err.text, "bf16"));
    r.precision = (char *)"f16";
    assert_int_equal(run(&r, world.captions[0], NULL, &err), MODE_E_VALUE);
}

/* One compute process, several tasks: the encoder stays loaded until another one replaces it. */
static void test_encoder_is_kept_from_task_to_task(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_store *store;
    struct mode_job_page page = {0};
    struct mode_job_kept kept = {0};
    const struct mode_compute_with with = {.backend = "cpu", .gpus = 1};
    struct mode_compute_end end;
    struct mode_compute_job task = {.fence = 1, .attempt = 1, .worker = "w"};
    char *root = mode_path_join(world.dir, "store"), *away = mode_path_join(world.dir, "encoder-away"),
         other[MODE_ENCODER_ID];
    world_ok(mode_dir_make(root, &err), &err);
    world_ok(mode_store_open(&store, root, &err), &err);
    Mode__EmbedRequest r = request();
    world_ok(mode_text_encoder_id_of(encoder, "cls", 16, other, NULL, NULL, &err), &err);
    for (int i = 0; i < 4; i++) {
        if (i == 1) assert_int_equal(rename(encoder, away), 0); /* it is not read again */
        if (i == 2) {                                           /* another one is, and fails: its files are missing */
            r.encoder_id = other;
            r.pooling = (char *)"cls";
        }
        if (i == 3) assert_int_equal(rename(away, encoder), 0);
        put_task(store, task.key, &r, world.captions[i % 3]);
        mode_compute_run(&end, store, "embed", embed_work, &with, &task, &page, &kept);
        if (i == 2) {
            assert_int_equal(end.status, MODE_E_NOINPUT);
            assert_null(kept.what);             /* the old one is released */
            assert_string_equal(page.unit, ""); /* and no texts are counted before it is loaded */
        } else {
            Mode__Commit *c;
            if (end.status) fail_msg("task %d: %s", i, end.text);
            world_ok(mode_store_commit_get(store, &c, task.key, &err), &err);
            assert_memory_equal(c->backend, "cpu", 3);
            mode__commit__free_unpacked(c, NULL);
            assert_int_equal(end.rows_out, WORLD_ROWS);
            assert_non_null(kept.what);
        }
    }
    mode_job_drop(&kept);
    mode_store_close(&store);
    free(root);
    free(away);
}

/* Ignoring an unknown field would store a wrong output under its key. A newer worker may take the task. */
static void test_what_only_a_newer_worker_understands_is_not_done(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_store *store;
    struct mode_job_page page = {0};
    const struct mode_compute_with with = {.backend = "cpu", .gpus = 1};
    struct mode_compute_end end;
    struct mode_compute_job task = {.fence = 1, .attempt = 1, .worker = "w"};
    uint8_t five[] = {5};
    ProtobufCMessageUnknownField field = {.tag = 100, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT, .len = 1, .data = five};
    char *root = mode_path_join(world.dir, "newer");
    Mode__EmbedRequest r = request();
    r.base.n_unknown_fields = 1;
    r.base.unknown_fields = &field;
    world_ok(mode_dir_make(root, &err), &err);
    world_ok(mode_store_open(&store, root, &err), &err);
    put_task(store, task.key, &r, world.captions[0]);
    mode_compute_run(&end, store, "embed", embed_work, &with, &task, &page, NULL);
    assert_int_equal(end.fail_class, MODE__FAIL_CLASS__FAIL_CODE);
    assert_non_null(strstr(end.text, "field 100 of mode.EmbedRequest"));
    assert_false(mode_store_commit_exists(store, task.key));
    mode_store_close(&store);
    free(root);
}

static int setup(void **state)
{
    (void)state;
    struct mode_error err = {0};
    world_open(&world);
    encoder = mode_path_join(world.dir, "encoder");
    out_dir = mode_path_join(world.dir, "out");
    out_path = mode_path_join(out_dir, "feat.safetensors");
    tiny_write(encoder);
    world_ok(mode_dir_make(out_dir, &err), &err);
    world_ok(mode_text_encoder_id_of(encoder, "mean", 16, id, NULL, NULL, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    free(encoder);
    free(out_dir);
    free(out_path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_captions),
        cmocka_unit_test(test_classes_are_unit_means_over_templates),
        cmocka_unit_test(test_retrieval_captions),
        cmocka_unit_test(test_texts_of_the_request),
        cmocka_unit_test(test_another_encoder_is_refused),
        cmocka_unit_test(test_a_precision_that_is_not_here_is_refused),
        cmocka_unit_test(test_encoder_is_kept_from_task_to_task),
        cmocka_unit_test(test_what_only_a_newer_worker_understands_is_not_done),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
