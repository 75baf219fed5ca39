#include "models/clip_weights.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 256 };
enum layout { SAME, TRANSPOSED, SPLIT }; /* how Hugging Face stores a tensor; SPLIT: by rows into query, key, value */

static const struct {
    const char *ours, *theirs; /* inner: relative to the block */
    enum layout layout;
} outer[] = {{"token_embedding.weight", "text_model.embeddings.token_embedding.weight", SAME},
             {"positional_embedding", "text_model.embeddings.position_embedding.weight", SAME},
             {"ln_final.weight", "text_model.final_layer_norm.weight", SAME},
             {"ln_final.bias", "text_model.final_layer_norm.bias", SAME},
             {"text_projection", "text_projection.weight", TRANSPOSED},
             {"visual.class_embedding", "vision_model.embeddings.class_embedding", SAME},
             {"visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight", SAME},
             {"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight", SAME},
             {"visual.ln_pre.weight", "vision_model.pre_layrnorm.weight", SAME}, /* their spelling */
             {"visual.ln_pre.bias", "vision_model.pre_layrnorm.bias", SAME},
             {"visual.ln_post.weight", "vision_model.post_layernorm.weight", SAME},
             {"visual.ln_post.bias", "vision_model.post_layernorm.bias", SAME},
             {"visual.proj", "visual_projection.weight", TRANSPOSED},
             {"logit_scale", "logit_scale", SAME}},
  inner[] = {{"ln_1.weight", "layer_norm1.weight", SAME},
             {"ln_1.bias", "layer_norm1.bias", SAME},
             {"attn.in_proj_weight", "self_attn.%c_proj.weight", SPLIT},
             {"attn.in_proj_bias", "self_attn.%c_proj.bias", SPLIT},
             {"attn.out_proj.weight", "self_attn.out_proj.weight", SAME},
             {"attn.out_proj.bias", "self_attn.out_proj.bias", SAME},
             {"ln_2.weight", "layer_norm2.weight", SAME},
             {"ln_2.bias", "layer_norm2.bias", SAME},
             {"mlp.c_fc.weight", "mlp.fc1.weight", SAME},
             {"mlp.c_fc.bias", "mlp.fc1.bias", SAME},
             {"mlp.c_proj.weight", "mlp.fc2.weight", SAME},
             {"mlp.c_proj.bias", "mlp.fc2.bias", SAME}};

static const char *without(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : name;
}

/* open_clip's CustomTextCLIP prefixes the text tower's names with "text."; otherwise its names are CLIP's. */
static const char *plain(const char *name)
{
    return without(mode_weights_bare_name(name), "text.");
}

/* Hugging Face's names of one of our parameters. Returns their number: 1, or 3 if SPLIT, or 0 if it has none. */
static int their_names(char names[3][MAX_NAME], enum layout *layout, const char *ours)
{
    static const char blocks[] = "transformer.resblocks.";
    const char *name = plain(ours), *tower = "text_model", *in_block = without(name, "visual.");
    if (in_block != name) tower = "vision_model";
    if (strncmp(in_block, blocks, sizeof blocks - 1) != 0) {
        for (size_t i = 0; i < sizeof outer / sizeof *outer; i++)
            if (strcmp(outer[i].ours, name) == 0) {
                snprintf(names[0], MAX_NAME, "%s", outer[i].theirs);
                *layout = outer[i].layout;
                return 1;
            }
        return 0;
    }
    char *end;
    long layer = strtol(in_block + sizeof blocks - 1, &end, 10);
    for (size_t i = 0; *end == '.' && i < sizeof inner / sizeof *inner; i++) {
        if (strcmp(inner[i].ours, end + 1) != 0) continue;
        *layout = inner[i].layout;
        int n = *layout == SPLIT ? 3 : 1;
        for (int k = 0; k < n; k++) {
            const char *theirs = inner[i].theirs, *letter = strstr(theirs, "%c");
            if (letter)
                snprintf(names[k], MAX_NAME, "%s.encoder.layers.%ld.%.*s%c%s", tower, layer, (int)(letter - theirs),
                         theirs, "qkv"[k], letter + 2);
            else
                snprintf(names[k], MAX_NAME, "%s.encoder.layers.%ld.%s", tower, layer, theirs);
        }
        return n;
    }
    return 0;
}

/* Buffers and sizes which some versions store beside the parameters; the config implies them. */
static bool is_constant(const char *name)
{
    static const char *const names[] = {"attn_mask",
                                        "input_resolution",
                                        "context_length",
                                        "vocab_size",
                                        "text_model.embeddings.position_ids",
                                        "vision_model.embeddings.position_ids"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(plain(name), names[i]) == 0) return true;
    return false;
}

static void transpose(char *to, const char *from, int64_t rows, int64_t cols, size_t each)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            memcpy(to + (size_t)(j * rows + i) * each, from + (size_t)(i * cols + j) * each, each);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

struct finder {
    const struct mode_weights *w;
    bool *used;
    const char *what;
    struct mode_error *err;
};

static const struct mode_tensor *find(struct finder *f, const char *name, bool *twice)
{
    const struct mode_tensor *found = NULL;
    for (size_t i = 0; i < f->w->n_tensors; i++) {
        if (strcmp(plain(f->w->tensors[i].name), name) != 0) continue;
        if (found) *twice = true;
        found = &f->w->tensors[i];
        f->used[i] = true;
    }
    return found;
}

static enum mode_status check_shape(const struct finder *f, const struct mode_tensor *t, int n_dims, const int64_t *dim)
{
    char got[160], want[160];
    struct mode_tensor w = mode_tensor_make(NULL, MODE_DTYPE_F32, n_dims, dim);
    bool same = t->n_dims == n_dims || (n_dims <= 1 && t->n_dims <= 1); /* [] equals [1] */
    for (int i = 0; i < MODE_MAX_DIMS; i++) same = same && t->dim[i] == w.dim[i];
    if (!same)
        return MODE_FAIL(f->err, MODE_E_SHAPE, "%s: tensor %s is %s, the config makes it %s", f->what, t->name,
                         mode_tensor_shape_text(t, got, sizeof got), mode_tensor_shape_text(&w, want, sizeof want));
    switch (t->dtype) {
    case MODE_DTYPE_F32:
    case MODE_DTYPE_F64:
    case MODE_DTYPE_F16:
    case MODE_DTYPE_BF16: return MODE_OK;
    default:
        return MODE_FAIL(f->err, MODE_E_FORMAT, "%s: tensor %s is %s; F32, F16, BF16 or F64 is expected", f->what,
                         t->name, mode_dtype_name(t->dtype));
    }
}

/* One parameter from Hugging Face's tensors: transposed, or query, key and value concatenated. */
static enum mode_status take_theirs(struct finder *f, struct mode_tensor *to, void **memory,
                                    const struct mode_tensor *want, char names[3][MAX_NAME], int n, enum layout layout)
{
    bool twice = false;
    int64_t dim[MODE_MAX_DIMS];
    memcpy(dim, want->dim, sizeof dim);
    if (layout == TRANSPOSED) dim[0] = want->dim[1], dim[1] = want->dim[0];
    dim[0] /= n;
    for (int k = 0; k < n; k++) {
        const struct mode_tensor *t = find(f, names[k], &twice);
        if (!t || twice)
            return MODE_FAIL(f->err, MODE_E_FORMAT, "%s: tensor %s (for %s) is %s", f->what, names[k], want->name,
                             t ? "there twice" : "missing");
        enum mode_status st = check_shape(f, t, want->n_dims, dim);
        if (st) return st;
        if (layout == SAME) {
            to->data = t->data;
            to->dtype = t->dtype;
            return MODE_OK;
        }
        size_t bytes = mode_tensor_bytes(t);
        if (!*memory) *memory = mode_xmalloc((size_t)n * bytes);
        if (k > 0 && t->dtype != to->dtype)
            return MODE_FAIL(f->err, MODE_E_FORMAT, "%s: tensor %s is %s, its neighbours are %s", f->what, t->name,
                             mode_dtype_name(t->dtype), mode_dtype_name(to->dtype));
        to->dtype = t->dtype;
        to->data = *memory;
        if (layout == TRANSPOSED)
            transpose(*memory, t->data, t->dim[0], t->dim[1], mode_dtype_size(t->dtype));
        else
            memcpy((char *)*memory + (size_t)k * bytes, t->data, bytes);
    }
    return MODE_OK;
}

static enum mode_status take(struct finder *f, struct mode__clip_tensors *to, size_t i, const struct mode_param *p)
{
    char names[3][MAX_NAME];
    enum layout layout = SAME;
    bool twice = false;
    const struct mode_tensor *want = &p->value;
    struct mode_tensor *t = &to->list[i];
    *t = *want;
    t->data = NULL;
    t->name = mode_xstrdup(p->name);
    to->n = i + 1;
    if (to->from_hf) {
        int n = their_names(names, &layout, p->name);
        if (n == 0)
            return MODE_FAIL(f->err, MODE_E_FORMAT, "%s: Hugging Face's CLIP has no %s, which the config asks for",
                             f->what, p->name);
        return take_theirs(f, t, &to->memory[i], want, names, n, layout);
    }
    const struct mode_tensor *from = find(f, plain(p->name), &twice);
    if (!from || twice)
        return MODE_FAIL(f->err, MODE_E_FORMAT, "%s: tensor %s is %s", f->what, p->name,
                         from ? "there twice" : "missing");
    enum mode_status st = check_shape(f, from, want->n_dims, want->dim);
    t->data = from->data;
    t->dtype = from->dtype;
    return st;
}

enum mode_status mode__clip_tensors_read(struct mode__clip_tensors *to, const struct mode_param *params, size_t n,
                                         const struct mode_weights *w, const char *what, struct mode_error *err)
{
    struct finder f = {.w = w, .what = what, .err = err};
    enum mode_status st = MODE_OK;
    *to = (struct mode__clip_tensors){0};
    to->list = mode_xcalloc(n + 1, sizeof *to->list);
    to->memory = mode_xcalloc(n + 1, sizeof *to->memory);
    f.used = mode_xcalloc(w->n_tensors + 1, sizeof *f.used);
    for (size_t i = 0; i < w->n_tensors; i++)
        to->from_hf |= !is_constant(w->tensors[i].name) &&
                       (strncmp(plain(w->tensors[i].name), "vision_model.", 13) == 0 ||
                        strncmp(plain(w->tensors[i].name), "text_model.", 11) == 0);
    /* an unknown tensor is reported rather than a missing one: it tells more about what model this is */
    for (size_t i = 0; !st && i < n; i++) st = take(&f, to, i, &params[i]);
    for (size_t i = 0; (!st || st == MODE_E_FORMAT) && i < w->n_tensors; i++) {
        const char *name = w->tensors[i].name;
        if (f.used[i] || is_constant(name)) continue;
        bool later = false; /* unused only because reading stopped early */
        for (size_t k = to->n; st && k < n; k++) {
            char names[3][MAX_NAME];
            enum layout layout;
            int n_names = to->from_hf ? their_names(names, &layout, params[k].name) : 0;
            later |= !to->from_hf && strcmp(plain(params[k].name), plain(name)) == 0;
            for (int j = 0; j < n_names; j++) later |= strcmp(names[j], plain(name)) == 0;
        }
        if (!later) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor %s is not a parameter of this model", what, name);
            break;
        }
    }
    free(f.used);
    if (st) mode__clip_tensors_clear(to);
    return st;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

enum mode_status mode__clip_tensors_to_hf(struct mode__clip_tensors *to, const struct mode__clip_tensors *from,
                                          const char *what, struct mode_error *err)
{
    *to = (struct mode__clip_tensors){.from_hf = true};
    to->list = mode_xcalloc(3 * from->n + 1, sizeof *to->list);
    to->memory = mode_xcalloc(3 * from->n + 1, sizeof *to->memory);
    for (size_t i = 0; i < from->n; i++) {
        const struct mode_tensor *t = &from->list[i];
        char names[3][MAX_NAME];
        enum layout layout = SAME;
        int n = their_names(names, &layout, t->name);
        if (n == 0) {
            enum mode_status st = MODE_FAIL(err, MODE_E_VALUE, "%s: %s has no place in Hugging Face's CLIP", what,
                                            t->name);
            mode__clip_tensors_clear(to);
            return st;
        }
        for (int k = 0; k < n; k++) {
            struct mode_tensor *out = &to->list[to->n];
            *out = *t;
            out->name = mode_xstrdup(names[k]);
            out->dim[0] = t->dim[0] / n;
            if (n > 1) out->data = (char *)t->data + (size_t)k * mode_tensor_bytes(out);
            if (layout == TRANSPOSED) {
                out->dim[0] = t->dim[1];
                out->dim[1] = t->dim[0];
                out->data = to->memory[to->n] = mode_xmalloc(mode_tensor_bytes(t));
                transpose(out->data, t->data, t->dim[0], t->dim[1], mode_dtype_size(t->dtype));
            }
            to->n++;
        }
    }
    return MODE_OK;
}

void mode__clip_tensors_clear(struct mode__clip_tensors *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free((void *)(uintptr_t)t->list[i].name);
        free(t->memory[i]);
    }
    free(t->list);
    free(t->memory);
    *t = (struct mode__clip_tensors){0};
}
