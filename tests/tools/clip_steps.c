/* mode-test-clip-steps - our CLIP for the Python checks: features, losses, gradients and updates on given batches.
 *
 *     mode-test-clip-steps MODEL_DIR IN.safetensors OUT.safetensors [key=value ...]
 *
 * IN: pixels f32 [N, 3, S, S]; ids i32 [N, C] padded; n_ids i32 [N]; order i32 [steps, B], rows of those.
 * OUT: losses f64 [steps]; after one step also image, text f32 [B, E] and grad.<name>; with lr, after the last step,
 * value.<name> of every parameter.
 * Keys: lr, warmup, total (schedule; lr=0: nothing is updated), wd, clip, beta1, beta2, eps, dense, full, pieces,
 * checkpoint, threads, backend, weights (0: no value.*), init (seed: our own initial weights in place of MODEL_DIR's).
 */
#include "base/parallel.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/adamw.h"
#include "optim/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void stop(const struct mode_error *err)
{
    fprintf(stderr, "mode-test-clip-steps: %s\n", err->text);
    exit(1);
}

static double number(int argc, char **argv, const char *key, double fallback)
{
    size_t n = strlen(key);
    for (int i = 4; i < argc; i++)
        if (strncmp(argv[i], key, n) == 0 && argv[i][n] == '=') return strtod(argv[i] + n + 1, NULL);
    return fallback;
}

static const struct mode_tensor *need(const struct mode_safetensors *f, const char *name, enum mode_dtype dtype)
{
    const struct mode_tensor *t = mode_safetensors_find(f, name);
    if (t && t->dtype == dtype) return t;
    fprintf(stderr, "mode-test-clip-steps: %s is missing or of another type\n", name);
    exit(1);
}

int main(int argc, char **argv)
{
    struct mode_error err = {0};
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_safetensors in;
    const char *backend = "cpu";
    if (argc < 4) return 2;
    for (int i = 4; i < argc; i++)
        if (strncmp(argv[i], "backend=", 8) == 0) backend = argv[i] + 8;
    if (number(argc, argv, "threads", 0) > 0) mode_parallel_set_threads((int)number(argc, argv, "threads", 0));
    if (mode_backend_open(&be, backend, &err) || mode_clip_load(&clip, be, argv[1], &err) ||
        mode_safetensors_open(&in, argv[2], &err))
        stop(&err);
    const struct mode_tensor *pixels = need(&in, "pixels", MODE_DTYPE_F32), *ids = need(&in, "ids", MODE_DTYPE_I32),
                             *n_ids = need(&in, "n_ids", MODE_DTYPE_I32), *order = need(&in, "order", MODE_DTYPE_I32);
    int64_t steps = order->dim[0], b = order->dim[1], context = ids->dim[1],
            picture = mode_tensor_count(pixels) / pixels->dim[0], e = mode_clip_embed_dim(clip);
    if (number(argc, argv, "init", -1) >= 0) {
        struct mode_clip *fresh;
        if (mode_clip_create(&fresh, be, mode_clip_model_cfg(clip), NULL, (uint64_t)number(argc, argv, "init", 0),
                             &err))
            stop(&err);
        mode_clip_close(&clip);
        clip = fresh;
    }
    mode_clip_set_savings(clip, number(argc, argv, "dense", 0) != 0, number(argc, argv, "full", 0) != 0);
    mode_clip_set_memory(clip, (int64_t)number(argc, argv, "pieces", 1), number(argc, argv, "checkpoint", 0) != 0);
    struct mode_adamw_step *now;
    if (mode_adamw_begin(&now, be, &err)) stop(&err);
    float *px = mode_xmalloc((size_t)(b * picture) * sizeof *px);
    float *image = mode_xmalloc((size_t)(b * e) * sizeof *image), *text = mode_xmalloc((size_t)(b * e) * sizeof *text);
    int32_t *flat = mode_xmalloc((size_t)(b * context) * sizeof *flat), *len = mode_xmalloc((size_t)b * sizeof *len);
    double *losses = mode_xcalloc((size_t)steps, sizeof *losses), lr = number(argc, argv, "lr", 0);
    size_t n = 0, n_out = 0;
    struct mode_param *p = mode_clip_params(clip, &n);
    struct mode_tensor *out = mode_xcalloc(2 * n + 3, sizeof *out);
    for (int64_t s = 0; s < steps; s++) {
        const int32_t *row = (const int32_t *)order->data + s * b;
        int64_t at = 0;
        for (int64_t i = 0; i < b; i++) {
            memcpy(px + i * picture, (const float *)pixels->data + row[i] * picture, (size_t)picture * sizeof *px);
            len[i] = ((const int32_t *)n_ids->data)[row[i]];
            memcpy(flat + at, (const int32_t *)ids->data + row[i] * context, (size_t)len[i] * sizeof *flat);
            at += len[i];
        }
        if (s == 0) {
            if (mode_clip_encode_images(clip, image, px, b, 0, &err) ||
                mode_clip_encode_texts(clip, text, flat, len, b, 0, &err) || mode_clip_train_begin(clip, b, &err))
                stop(&err);
        }
        if (mode_clip_train_step(clip, &losses[s], px, flat, len, b, &err)) stop(&err);
        if (lr > 0) {
            struct mode_adamw o = MODE_ADAMW_DEFAULT;
            const struct mode_schedule schedule = {.lr = lr,
                                                   .warmup = (uint64_t)number(argc, argv, "warmup", 0),
                                                   .total = (uint64_t)number(argc, argv, "total", (double)steps)};
            o.lr = mode_schedule_lr(&schedule, (double)s);
            o.weight_decay = number(argc, argv, "wd", 0.2);
            o.clip_norm = number(argc, argv, "clip", 0);
            o.beta1 = number(argc, argv, "beta1", 0.9);
            o.beta2 = number(argc, argv, "beta2", 0.98);
            o.eps = number(argc, argv, "eps", 1e-6);
            mode_adamw_tell(now, &o, s + 1);
            mode_adamw_update(be, p, n, now);
            mode_clip_clamp(clip);
        }
    }
    out[n_out] = mode_tensor_make(losses, MODE_DTYPE_F64, 1, &steps);
    out[n_out++].name = "losses";
    out[n_out] = mode_tensor_2d(image, MODE_DTYPE_F32, b, e);
    out[n_out++].name = "image";
    out[n_out] = mode_tensor_2d(text, MODE_DTYPE_F32, b, e);
    out[n_out++].name = "text";
    for (size_t i = 0; i < n; i++) {
        if (steps == 1) {
            out[n_out] = p[i].grad;
            out[n_out++].name = mode_xasprintf("grad.%s", p[i].name);
        }
        if (lr > 0 && number(argc, argv, "weights", 1) != 0) {
            out[n_out] = p[i].value;
            out[n_out++].name = mode_xasprintf("value.%s", p[i].name);
        }
    }
    if (mode_safetensors_write(argv[3], out, n_out, NULL, 0, &err)) stop(&err);
    for (size_t i = 3; i < n_out; i++) free((char *)(uintptr_t)out[i].name);
    free(out);
    free(losses);
    free(px);
    free(image);
    free(text);
    free(flat);
    free(len);
    mode_safetensors_close(&in);
    mode_backend_free(be, now);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    return 0;
}
