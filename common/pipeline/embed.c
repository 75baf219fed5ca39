#include "pipeline/embed.h"

#include "base/str.h"
#include "data/captions.h"
#include "data/evalset.h"
#include "data/npy.h"
#include "data/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mode_status mode_text_encoder_open_as(struct mode_text_encoder **enc, struct mode_backend *be, const char *dir,
                                           const char *encoder_id, const char *pooling, int max_tokens,
                                           struct mode_error *err)
{
    char its_pooling[16];
    int its_tokens;
    if (sscanf(encoder_id, "%*[^:]:%*[^:]:%15[a-z]:%d", its_pooling, &its_tokens) == 2) {
        if (!pooling) pooling = its_pooling;
        if (max_tokens == 0) max_tokens = its_tokens;
    }
    return mode_text_encoder_open(enc, be, dir, pooling, max_tokens, err);
}

static enum mode_status save(const char *out_path, const float *x, size_t n, const struct mode_text_encoder *enc,
                             const char *source, struct mode_error *err)
{
    char k_id[] = "encoder_id", k_source[] = "source";
    char *id = mode_xstrdup(mode_text_encoder_id(enc)), *digest = mode_xstrdup(source);
    struct mode_meta meta[] = {{k_id, id}, {k_source, digest}};
    struct mode_tensor feat = mode_tensor_2d((void *)(uintptr_t)x, MODE_DTYPE_F32, (int64_t)n,
                                             mode_text_encoder_dim(enc));
    size_t len = strlen(out_path);
    feat.name = "feat";
    enum mode_status st = len > 4 && strcmp(out_path + len - 4, ".npy") == 0
                              ? mode_npy_write(out_path, &feat, err)
                              : mode_safetensors_write(out_path, &feat, 1, meta, 2, err);
    free(id);
    free(digest);
    return st;
}

/* Allocates n rows; NULL with an error if there is no memory. */
static float *rows_alloc(size_t n, const struct mode_text_encoder *enc, const char *what, struct mode_error *err)
{
    size_t bytes;
    float *x = NULL;
    if (mode_mul_size(n + 1, (size_t)mode_text_encoder_dim(enc) * sizeof *x, &bytes)) x = malloc(bytes);
    if (!x) MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for %zu vectors", what, n);
    return x;
}

static enum mode_status encode_and_save(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                        const char *const *texts, size_t n, const char *source_path, const char *source,
                                        mode_encode_tick_fn *tick, void *ctx, struct mode_error *err)
{
    float *x = rows_alloc(n, enc, source_path, err);
    if (!x) return MODE_E_MEMORY;
    enum mode_status st = mode_text_encoder_encode(enc, x, texts, n, tick, ctx, err);
    if (!st) st = save(out_path, x, n, enc, source, err);
    if (!st && rows) *rows = n;
    free(x);
    return st;
}

enum mode_status mode_embed_captions(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                     const char *captions_path, mode_encode_tick_fn *tick, void *ctx,
                                     struct mode_error *err)
{
    struct mode_captions c = {0};
    char digest[MODE_DIGEST_HEX];
    enum mode_status st = mode_digest_file(captions_path, digest, NULL, err);
    if (st || (st = mode_captions_load(&c, captions_path, err))) return st;
    const char **texts = mode_xcalloc((size_t)c.n_rows + 1, sizeof *texts);
    for (uint32_t i = 0; i < c.n_rows; i++) texts[i] = mode_captions_row(&c, i).caption;
    st = encode_and_save(rows, out_path, enc, texts, c.n_rows, captions_path, digest, tick, ctx, err);
    free(texts);
    mode_captions_clear(&c);
    return st;
}

enum mode_status mode_embed_lines(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                  const char *text_path, mode_encode_tick_fn *tick, void *ctx, struct mode_error *err)
{
    char *data, digest[MODE_DIGEST_HEX];
    const char **texts = NULL;
    size_t size, n = 0, cap = 0;
    enum mode_status st = mode_file_read(text_path, 0, &data, &size, err);
    if (st) return st;
    mode_digest_bytes(data, size, digest);
    for (size_t at = 0; !st && at < size;) {
        char *line = data + at, *stop = memchr(line, '\n', size - at);
        size_t len = stop ? (size_t)(stop - line) : size - at;
        if (memchr(line, '\0', len))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %zu has a NUL byte: not a text file", text_path, n + 1);
        line[len] = '\0';
        if (n == cap) texts = mode_xrealloc(texts, (cap = cap ? 2 * cap : 256) * sizeof *texts);
        texts[n++] = line;
        at += len + 1;
    }
    if (!st) st = encode_and_save(rows, out_path, enc, texts, n, text_path, digest, tick, ctx, err);
    free(texts);
    free(data);
    return st;
}

enum mode_status mode_embed_texts(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                  const char *const *texts, size_t n, mode_encode_tick_fn *tick, void *ctx,
                                  struct mode_error *err)
{
    struct mode_str all = {0};
    char digest[MODE_DIGEST_HEX];
    for (size_t i = 0; i < n; i++) mode_str_printf(&all, "%s\n", texts[i]);
    mode_digest_bytes(all.data, all.len, digest);
    mode_str_clear(&all);
    return encode_and_save(rows, out_path, enc, texts, n, "words", digest, tick, ctx, err);
}

/* ---- tasks ----------------------------------------------------------------------------------------------- */

/* Progress over all prompts, as one call of the encoder sees a part of them. */
struct part {
    mode_encode_tick_fn *tick;
    void *ctx;
    size_t before, total;
};

static enum mode_status tick_part(void *ctx, size_t done, size_t total)
{
    struct part *p = ctx;
    (void)total;
    return p->tick ? p->tick(p->ctx, p->before + done, p->total) : MODE_OK;
}

/* out [d] = normalised mean of the t unit rows of x. */
static void unit_mean(float *out, const float *x, int t, int d)
{
    double squares = 0;
    for (int k = 0; k < d; k++) {
        double sum = 0;
        for (int i = 0; i < t; i++) sum += x[(size_t)i * (size_t)d + (size_t)k];
        out[k] = (float)(sum / t);
        squares += (double)out[k] * out[k];
    }
    double norm = sqrt(squares);
    for (int k = 0; k < d; k++) out[k] = (float)(out[k] / (norm > 1e-12 ? norm : 1e-12));
}

/* out [classes, d]; in groups of classes, which bounds memory for a thousand classes with eighty templates. */
static enum mode_status encode_classes(float *out, struct mode_text_encoder *enc, const struct mode_evalset *e,
                                       mode_encode_tick_fn *tick, void *ctx, struct mode_error *err)
{
    enum { GROUP = 64 };
    size_t d = (size_t)mode_text_encoder_dim(enc), most = 0, total = 0;
    for (int k = 0; k < e->n_classes; k++) {
        size_t n = (size_t)mode_evalset_n_prompts(e, k);
        most = n > most ? n : most;
        total += n;
    }
    const size_t all = GROUP * most;
    char **prompts = mode_xcalloc(all, sizeof *prompts);
    float *x = rows_alloc(all, enc, e->name, err);
    enum mode_status st = x ? MODE_OK : MODE_E_MEMORY;
    struct part p = {.tick = tick, .ctx = ctx, .total = total};
    for (int first = 0; !st && first < e->n_classes; first += GROUP) {
        const int end = e->n_classes - first < GROUP ? e->n_classes : first + GROUP;
        size_t n = 0, at = 0;
        for (int k = first; k < end; k++)
            for (int i = 0; i < mode_evalset_n_prompts(e, k); i++) prompts[n++] = mode_evalset_prompt(e, i, k);
        st = mode_text_encoder_encode(enc, x, (const char *const *)prompts, n, tick_part, &p, err);
        for (int k = first; !st && k < end; k++) {
            const int its = mode_evalset_n_prompts(e, k);
            unit_mean(out + (size_t)k * d, x + at * d, its, (int)d);
            at += (size_t)its;
        }
        p.before += n;
        for (size_t i = 0; i < n; i++) free(prompts[i]);
    }
    free(x);
    free(prompts);
    return st;
}

enum mode_status mode_embed_words(float **x, struct mode_text_encoder *enc, const struct mode_evalset *e,
                                  mode_encode_tick_fn *tick, void *ctx, struct mode_error *err)
{
    bool is_retrieval = e->kind == MODE_TASK_RETRIEVAL;
    size_t n = (size_t)(is_retrieval ? e->n_texts : e->n_classes);
    if (!(*x = rows_alloc(n, enc, e->name, err))) return MODE_E_MEMORY;
    if (is_retrieval) return mode_text_encoder_encode(enc, *x, (const char *const *)e->texts, n, tick, ctx, err);
    return encode_classes(*x, enc, e, tick, ctx, err);
}

enum mode_status mode_embed_task(uint64_t *rows, const char *out_path, struct mode_text_encoder *enc,
                                 const char *task_dir, const char *words_digest, mode_encode_tick_fn *tick, void *ctx,
                                 struct mode_error *err)
{
    struct mode_evalset e = {0};
    char digest[MODE_DIGEST_HEX];
    float *x = NULL;
    enum mode_status st = mode_evalset_words_digest(task_dir, digest, err);
    if (st) return st;
    if (words_digest && strcmp(words_digest, digest) != 0)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: its words changed since the run was planned: digest %s, expected %s",
                         task_dir, digest, words_digest);
    if ((st = mode_evalset_open(&e, task_dir, err))) return st;
    size_t n = (size_t)(e.kind == MODE_TASK_RETRIEVAL ? e.n_texts : e.n_classes);
    st = mode_embed_words(&x, enc, &e, tick, ctx, err);
    if (!st) st = save(out_path, x, n, enc, digest, err);
    if (!st && rows) *rows = n;
    free(x);
    mode_evalset_close(&e);
    return st;
}
