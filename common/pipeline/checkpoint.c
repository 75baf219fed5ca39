#include "pipeline/checkpoint.h"

#include "base/options.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "nn/mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum mode_status check_count(const struct mode_safetensors *f, size_t n, const char *path,
                                    struct mode_error *err)
{
    if (f->n_tensors == n) return MODE_OK;
    return MODE_FAIL(err, MODE_E_FORMAT, "%s: holds %zu tensors, the model needs exactly %zu", path, f->n_tensors, n);
}

static enum mode_status fail_missing(const char *name, const char *path, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_FORMAT,
                     "%s: has no moments of %s; the training that wrote it had locked it, or it is of another model. "
                     "HINT: lock it here, too, or begin at step 0 from the weights alone: --fresh-optimizer; in a run, "
                     "train.init: the file of weights",
                     path, name);
}

static enum mode_status copy_tensor(struct mode_backend *be, struct mode_tensor *to, const struct mode_safetensors *f,
                                    const char *name, struct mode_error *err)
{
    const struct mode_tensor *from;
    enum mode_status st = mode_safetensors_need(f, name, MODE_DTYPE_F32, to->n_dims, to->dim, &from, err);
    if (!st && be)
        mode_backend_copy(be, to->data, from->data, mode_tensor_bytes(to));
    else if (!st)
        memcpy(to->data, from->data, mode_tensor_bytes(to));
    return st;
}

enum mode_status mode_checkpoint_save_moments(const char *path, struct mode_backend *be,
                                              const struct mode_param *params, size_t n, uint64_t step,
                                              struct mode_error *err)
{
    struct mode_mirror m = {.be = be};
    struct mode_tensor *t = mode_xcalloc(2 * n, sizeof *t);
    char number[32];
    size_t n_tensors = 0;
    snprintf(number, sizeof number, "%llu", (unsigned long long)step);
    struct mode_meta meta[] = {{(char *)"format", (char *)"pt"}, {(char *)"step", number}};
    for (size_t i = 0; i < n; i++) {
        if (!params[i].m.data) continue; /* locked */
        t[n_tensors] = params[i].m;
        t[n_tensors++].name = mode_xasprintf("exp_avg.%s", params[i].name);
        t[n_tensors] = params[i].v;
        t[n_tensors++].name = mode_xasprintf("exp_avg_sq.%s", params[i].name);
    }
    enum mode_status st = mode_safetensors_write_from(path, t, n_tensors, meta, 2, be ? mode_mirror_fetch : NULL, &m,
                                                      err);
    mode_mirror_clear(&m);
    for (size_t i = 0; i < n_tensors; i++) free((char *)t[i].name);
    free(t);
    return st;
}

static enum mode_status read_step(uint64_t *step, const struct mode_safetensors *f, const char *path,
                                  struct mode_error *err)
{
    const char *text = mode_safetensors_meta(f, "step");
    int64_t value = 0;
    if (!text) return MODE_FAIL(err, MODE_E_FORMAT, "%s: has no metadata key \"step\"", path);
    enum mode_status st = mode_parse_int(text, "step", 0, INT64_MAX, &value, err);
    if (st) return mode_error_prefix(err, st, "%s", path);
    *step = (uint64_t)value;
    return MODE_OK;
}

enum mode_status mode_checkpoint_load_moments(struct mode_backend *be, struct mode_param *params, size_t n,
                                              uint64_t *step, const char *path, struct mode_error *err)
{
    struct mode_safetensors f = {0};
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    size_t n_tensors = 0;
    for (size_t i = 0; !st && i < n; i++) {
        char *m = mode_xasprintf("exp_avg.%s", params[i].name), *v = mode_xasprintf("exp_avg_sq.%s", params[i].name);
        const bool is_there = mode_safetensors_find(&f, m) || mode_safetensors_find(&f, v);
        n_tensors += is_there ? 2 : 0;
        if (!params[i].m.data) { /* locked: moments from before are not needed */
        } else if (!is_there)
            st = fail_missing(params[i].name, path, err);
        else if (!(st = copy_tensor(be, &params[i].m, &f, m, err)))
            st = copy_tensor(be, &params[i].v, &f, v, err);
        free(m);
        free(v);
    }
    if (!st) st = check_count(&f, n_tensors, path, err);
    if (!st) st = read_step(step, &f, path, err);
    mode_safetensors_close(&f);
    return st;
}

enum mode_status mode_checkpoint_step(uint64_t *step, const char *path, struct mode_error *err)
{
    struct mode_safetensors f = {0};
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    st = read_step(step, &f, path, err);
    mode_safetensors_close(&f);
    return st;
}
