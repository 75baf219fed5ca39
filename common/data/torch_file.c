#include "data/torch_file.h"

#include "base/str.h"
#include "data/jail.h"

#include <stdlib.h>
#include <string.h>

enum { SCRATCH = 256 << 20 };

static void work(void *ctx, void *out, void *scratch, size_t scratch_size)
{
    const struct mode_mapping *map = ctx;
    struct mode_scratch s = {scratch, scratch_size, 0};
    mode_torch_plan_make(out, &s, map->data, map->size);
}

/* Row-major with no gaps: the view can be used in place. Strides of extents of 1 do not matter. */
static bool is_contiguous(const struct mode_torch_entry *e)
{
    int64_t want = 1;
    for (int i = e->n_dims; i-- > 0;) {
        if (e->dim[i] == 0) return true;
        if (e->dim[i] != 1 && e->stride[i] != want) return false;
        want *= e->dim[i];
    }
    return true;
}

/* A strided view, element by element, into row-major order. */
static void gather(char *to, const char *from, const struct mode_torch_entry *e)
{
    size_t each = mode_dtype_size(e->dtype);
    int64_t index[MODE_MAX_DIMS] = {0}, at = 0;
    for (;;) {
        memcpy(to, from + (size_t)at * each, each);
        to += each;
        int i = e->n_dims - 1;
        for (; i >= 0; i--) {
            at += e->stride[i];
            if (++index[i] < e->dim[i]) break;
            at -= e->dim[i] * e->stride[i];
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

static enum mode_status take_plan(struct mode_torch_file *f, const struct mode_torch_plan *plan, const char *path,
                                  struct mode_error *err)
{
    f->tensors = mode_xcalloc((size_t)plan->n_entries + 1, sizeof *f->tensors);
    f->copies = mode_xcalloc((size_t)plan->n_entries + 1, sizeof *f->copies);
    memcpy(f->note, plan->note, sizeof f->note);
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const struct mode_torch_entry *e = &plan->entry[i];
        struct mode_tensor *t = &f->tensors[i];
        const uint8_t *from = f->map.data + e->begin + (size_t)e->offset * mode_dtype_size(e->dtype);
        *t = mode_tensor_make((void *)(uintptr_t)from, e->dtype, e->n_dims, e->dim);
        t->name = mode_xstrdup(plan->names + e->name);
        f->n_tensors++;
        if (mode_tensor_count(t) == 0 || is_contiguous(e)) continue;
        f->copies[i] = malloc(mode_tensor_bytes(t)); /* at most the storage's own size */
        if (!f->copies[i])
            return MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for the %zu bytes of %s", path, mode_tensor_bytes(t),
                             t->name);
        gather(f->copies[i], (const char *)from, e);
        t->data = f->copies[i];
    }
    return MODE_OK;
}

enum mode_status mode_torch_file_open(struct mode_torch_file *f, const char *path, struct mode_error *err)
{
    struct mode_jail jail = {0};
    *f = (struct mode_torch_file){0};
    enum mode_status st = mode_file_map(path, &f->map, err);
    if (st) return st;
    st = mode_jail_run(&jail, sizeof(struct mode_torch_plan), SCRATCH, work, &f->map, path, err);
    if (st) goto out;
    const struct mode_torch_plan *plan = jail.out;
    if (plan->status)
        st = MODE_FAIL(err, plan->status == MODE_E_MEMORY ? MODE_E_MEMORY : MODE_E_FORMAT, "%s: %.599s", path,
                       plan->text);
    else if ((st = mode_torch_plan_check(plan, f->map.size, err)))
        st = mode_error_prefix(err, st, "%s", path);
    else
        st = take_plan(f, plan, path, err);
out:
    mode_jail_clear(&jail);
    if (st) mode_torch_file_close(f);
    return st;
}

void mode_torch_file_close(struct mode_torch_file *f)
{
    for (size_t i = 0; i < f->n_tensors; i++) {
        free((void *)(uintptr_t)f->tensors[i].name);
        free(f->copies[i]);
    }
    free(f->tensors);
    free(f->copies);
    mode_file_unmap(&f->map);
    *f = (struct mode_torch_file){0};
}
