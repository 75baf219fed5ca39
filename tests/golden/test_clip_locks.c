/* Locked towers against open_clip (make_lock_goldens.py): which parameters are trained with each number of unlocked
 * groups, name by name; and ten steps of its trainer in double precision, clipped and not. */
#include "base/file.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_folder.h"
#include "models/clip_impl.h"
#include "nn/backend.h"
#include "optim/adamw.h"
#include "optim/schedule.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char HERE[] = MODE_SOURCE_DIR "/tests/golden/clip_locks/";
enum { STEPS = 10, WARMUP = 2, PAIRS = 5 };

/* With n unlocked groups, counted from the output. least: the smallest number with which a parameter is trained. */
static void check_names(struct mode_clip *clip, const json_t *least, bool image, int64_t n)
{
    const struct mode_clip_lock lock = {image, !image, image ? n : 0, image ? 0 : n};
    struct mode_error err;
    size_t n_params, locked = 0, floats = 0;
    assert_int_equal(mode_clip_set_lock(clip, &lock, &err), MODE_OK);
    const struct mode_param *p = mode_clip_params(clip, &n_params);
    for (size_t i = 0; i < n_params; i++) {
        const json_t *from = json_object_get(least, p[i].name);
        const bool want = from && n < json_integer_value(from);
        if (p[i].frozen != want)
            fail_msg("%s, %lld unlocked: %s is %s", image ? "image" : "text", (long long)n, p[i].name,
                     want ? "trained" : "locked");
        locked += want;
        floats += want ? (size_t)mode_tensor_count(&p[i].value) : 0;
    }
    const struct mode_clip_locked l = mode_clip_locked(clip);
    assert_int_equal(l.tensors, locked);
    assert_int_equal(l.parameters, floats);
    assert_int_equal(l.all_tensors, n_params);
    if (n == 0) assert_int_equal(locked, json_object_size(least)); /* every name is known */
}

static void test_open_clip_locks_the_same_parameters(void **state)
{
    char *path = mode_xasprintf("%snames.json", HERE);
    json_t *all = json_load_file(path, 0, NULL), *model;
    size_t i;
    (void)state;
    assert_int_equal(json_array_size(all), 4);
    json_array_foreach(all, i, model)
    {
        struct mode_clip_files f = {.config = path, .model_cfg = json_dumps(json_object_get(model, "config"), 0)};
        struct mode_clip *clip;
        struct mode_error err;
        if (mode__clip_describe(&clip, &f, &err)) fail_msg("%s", err.text);
        for (int64_t n = 0; n <= clip->image.cfg.layers + 4; n++)
            check_names(clip, json_object_get(model, "image"), true, n);
        for (int64_t n = 0; n <= clip->text.cfg.layers + 4; n++)
            check_names(clip, json_object_get(model, "text"), false, n);
        mode_clip_close(&clip);
        free(f.model_cfg);
    }
    json_decref(all);
    free(path);
}

static double distance(const float *a, const float *b, int64_t from, int64_t n)
{
    double most = 0;
    for (int64_t i = from; i < n; i++) most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

/* Final weights. The key bias is left out: its gradient is rounding noise, and AdamW takes full steps even then. */
static void check_weights(struct mode_clip *clip, const struct mode_safetensors *want, const char *which,
                          const char *backend)
{
    size_t n;
    const struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        char *name = mode_xasprintf("%s/%s", which, p[i].name);
        const struct mode_tensor *w = mode_safetensors_find(want, name);
        const float *a = mode_f32(&p[i].value), *b = w ? w->data : NULL;
        const int64_t count = mode_tensor_count(&p[i].value), third = count / 3;
        if (!w) fail_msg("%s is missing", name);
        const bool bias = strstr(name, "in_proj_bias") != NULL && !p[i].frozen;
        const double off = fmax(distance(a, b, 0, bias ? third : count), distance(a, b, bias ? 2 * third : 0, count));
        if (!(off <= (p[i].frozen ? 0 : 5e-6))) fail_msg("%s: %s is off by %.3g", backend, name, off);
        free(name);
    }
}

static void check_steps(const char *which, const struct mode_clip_lock *lock, double clip_norm, const char *backend,
                        int64_t pieces)
{
    const struct mode_schedule schedule = {.lr = 1e-3, .warmup = WARMUP, .total = STEPS};
    struct mode_adamw options = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now;
    struct mode_safetensors in, want;
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_error err;
    int32_t ids[64];
    size_t n, at = 0;
    char *path = mode_xasprintf("%ssteps.safetensors", HERE), *losses = mode_xasprintf("%s/losses", which);
    if (mode_backend_open(&be, backend, &err) ||
        mode_clip_load(&clip, be, MODE_SOURCE_DIR "/tests/golden/clip_gradients/gelu", &err) ||
        mode_safetensors_open(&in, MODE_SOURCE_DIR "/tests/golden/clip_gradients/gelu/step.safetensors", &err) ||
        mode_safetensors_open(&want, path, &err) || mode_clip_set_lock(clip, lock, &err))
        fail_msg("%s", err.text);
    const struct mode_tensor *padded = mode_safetensors_find(&in, "ids");
    const int32_t *n_ids = mode_safetensors_find(&in, "n_ids")->data;
    for (int64_t i = 0; i < PAIRS; i++)
        for (int j = 0; j < n_ids[i]; j++) ids[at++] = ((const int32_t *)padded->data)[i * padded->dim[1] + j];
    mode_clip_set_memory(clip, pieces, pieces > 1);
    if (mode_clip_train_begin(clip, PAIRS, &err) || mode_adamw_begin(&now, be, &err)) fail_msg("%s", err.text);
    struct mode_param *p = mode_clip_params(clip, &n);
    options.clip_norm = clip_norm;
    for (int i = 0; i < STEPS; i++) {
        double loss, theirs = ((const double *)mode_safetensors_find(&want, losses)->data)[i];
        options.lr = mode_schedule_lr(&schedule, i);
        if (mode_clip_train_step(clip, &loss, mode_safetensors_find(&in, "pixels")->data, ids, n_ids, PAIRS, &err))
            fail_msg("%s", err.text);
        mode_adamw_tell(now, &options, i + 1);
        mode_adamw_update(be, p, n, now);
        mode_clip_clamp(clip);
        if (!(fabs(loss - theirs) < 5e-6 * theirs))
            fail_msg("%s, %s: loss %d is %.9g, not %.9g", which, backend, i, loss, theirs);
    }
    mode_backend_sync(be);
    check_weights(clip, &want, which, backend);
    mode_safetensors_close(&in);
    mode_safetensors_close(&want);
    mode_clip_close(&clip);
    mode_backend_free(be, now);
    mode_backend_close(&be);
    free(losses);
    free(path);
}

static void test_ten_steps_are_those_of_open_clip(void **state)
{
    static const char *const backends[] = {"ref", "cpu", "cpu-plain"};
    static const struct {
        const char *which;
        struct mode_clip_lock lock;
        double clip_norm;
    } cases[] = {{"0 - 0", {true, false, 0, 0}, 0},
                 {"- 0 0.5", {false, true, 0, 0}, 0.5},
                 {"2 3 0.5", {true, true, 2, 3}, 0.5},
                 {"1 1 0", {true, true, 1, 1}, 0},
                 {"3 - 0.5", {true, false, 3, 0}, 0.5}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 3; k++)
            for (int64_t pieces = 1; pieces <= 3; pieces += 2)
                check_steps(cases[i].which, &cases[i].lock, cases[i].clip_norm, backends[k], pieces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_clip_locks_the_same_parameters),
        cmocka_unit_test(test_ten_steps_are_those_of_open_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
