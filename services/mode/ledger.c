#include "ledger.h"

#include "base/file.h"
#include "base/index.h"
#include "base/str.h"
#include "cluster/centres.h"
#include "data/safetensors.h"
#include "store/artifacts.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct ledger *l;
    struct mode_store *store;
    json_t *plan;
    struct mode_index by_label; /* of the plan's nodes */
    struct mode_centres centres;
    bool have_centres;
    uint64_t *kept; /* [shards] */
    size_t n_added; /* experts with data of their own; shard_end [n_added + 1]: see run.c of the coordinator */
    json_t *shard_end;
};

static void problem(struct ledger *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct ledger *l, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (l->n_problems < LEDGER_PROBLEMS) l->problem[l->n_problems] = mode_xstrdup(text);
    l->n_problems++;
}

static const char *text_of(json_t *node, const char *field)
{
    const char *s = json_string_value(json_object_get(node, field));
    return s ? s : "";
}

/* The node of that label, its commit and the path of one of its outputs; false after noting what is wrong. */
static bool open_output(struct reader *r, const char *label, Mode__Commit **commit, char **path, const char *output)
{
    struct mode_error err = {0};
    uint32_t at = mode_index_get(&r->by_label, label);
    *commit = NULL;
    *path = NULL;
    if (at == MODE_INDEX_NONE) {
        problem(r->l, "the plan has no task %s", label);
        return false;
    }
    const char *key = text_of(json_array_get(json_object_get(r->plan, "nodes"), at), "key");
    enum mode_status st = mode_key_valid(key) ? mode_store_commit_get(r->store, commit, key, &err) : MODE_E_NOINPUT;
    if (st) return false; /* read_all has looked at every commit and noted what is missing or damaged */
    for (size_t o = 0; output && o < (*commit)->n_outputs; o++)
        if (strcmp((*commit)->outputs[o]->name, output) == 0 &&
            mode_store_blob_path(r->store, path, (*commit)->outputs[o]->digest, (*commit)->outputs[o]->size, &err)) {
            problem(r->l, "%s: %s", label, err.text);
            return false;
        }
    if (output && !*path) problem(r->l, "%s: its commit record names no %s", label, output);
    return !output || *path;
}

static void close_output(Mode__Commit *commit, char *path)
{
    if (commit) mode__commit__free_unpacked(commit, NULL);
    free(path);
}

static void read_captions(struct reader *r, size_t shard)
{
    struct mode_captions c = {0};
    struct mode_error err = {0};
    Mode__Commit *commit;
    char *path, label[64];
    snprintf(label, sizeof label, "captions/%04zu", shard);
    if (open_output(r, label, &commit, &path, "captions.bin")) {
        if (mode_captions_load(&c, path, &err)) {
            problem(r->l, "%s: %s", label, err.text);
        } else {
            uint64_t sum = 0, rejects = 0;
            for (int f = 0; f < MODE_FATE_COUNT; f++) {
                r->l->fate[f] += c.fate_count[f];
                sum += c.fate_count[f];
            }
            for (size_t i = 0; i < commit->n_rejects; i++) rejects += commit->rejects[i]->n;
            if (sum != c.n_samples || c.fate_count[MODE_FATE_KEPT] != c.n_rows)
                problem(r->l, "%s: %u samples, %u kept, but the fates sum to %" PRIu64, label, c.n_samples, c.n_rows,
                        sum);
            if (commit->rows_in != c.n_samples || commit->rows_out != c.n_rows || rejects + c.n_rows != c.n_samples)
                problem(r->l,
                        "%s: the commit record says %" PRIu64 " in, %" PRIu64 " out, %" PRIu64
                        " rejected; the file has %u samples, %u kept",
                        label, commit->rows_in, commit->rows_out, rejects, c.n_samples, c.n_rows);
            r->l->samples += c.n_samples;
            r->kept[shard] = c.n_rows;
        }
        mode_captions_clear(&c);
    }
    close_output(commit, path);
}

/* Rows of a shard's vectors or assignment; assignments are also counted by coarse group. */
static void read_rows(struct reader *r, size_t shard, const char *stage, const char *file, const char *tensor,
                      uint64_t *sum)
{
    struct mode_safetensors f = {0};
    struct mode_error err = {0};
    Mode__Commit *commit;
    char *path, label[64];
    snprintf(label, sizeof label, "%s/%04zu", stage, shard);
    if (open_output(r, label, &commit, &path, file)) {
        const struct mode_tensor *t = NULL;
        bool open = mode_safetensors_open(&f, path, &err) == MODE_OK;
        if (open) t = mode_safetensors_find(&f, tensor);
        uint64_t rows = t ? (uint64_t)t->dim[0] : 0;
        if (!t) {
            problem(r->l, "%s: %s", label, open ? "the tensor is missing" : err.text);
        } else if (rows != r->kept[shard] || commit->rows_out != rows) {
            problem(r->l, "%s: %" PRIu64 " rows, the commit record says %" PRIu64 ", but %" PRIu64 " pairs were kept",
                    label, rows, commit->rows_out, r->kept[shard]);
        }
        *sum += rows;
        for (uint64_t i = 0; t && r->have_centres && t->dtype == MODE_DTYPE_I32 && i < rows; i++) {
            int32_t fine;
            memcpy(&fine, (const char *)t->data + 4 * i, 4);
            if (fine < 0 || fine >= r->centres.m)
                problem(r->l, "%s: row %" PRIu64 " has fine id %d of %d", label, i, fine, r->centres.m);
            else
                r->l->pool[r->centres.fine_to_coarse[fine]]++;
        }
        if (open) mode_safetensors_close(&f);
    }
    close_output(commit, path);
}

static void read_centres(struct reader *r)
{
    struct mode_error err = {0};
    Mode__Commit *commit;
    char *path;
    char label[64] = "cluster";
    if (r->n_added) snprintf(label, sizeof label, "grow/%zu", r->n_added - 1);
    if (open_output(r, label, &commit, &path, "centres.safetensors")) {
        if (mode_centres_load(&r->centres, path, &err))
            problem(r->l, "%s: %s", label, err.text);
        else if (r->centres.n != r->l->n_experts)
            problem(r->l, "%s: %d coarse groups, the run has %d experts", label, r->centres.n, r->l->n_experts);
        else
            r->have_centres = true;
    }
    close_output(commit, path);
}

/* Kept pairs of the shards that expert k may see: those of data.train, and its own if it was added. */
static uint64_t kept_for(const struct reader *r, int k)
{
    uint64_t sum = 0;
    size_t base = (size_t)json_integer_value(json_array_get(r->shard_end, 0)), from = 0, to = 0;
    int own = k - (r->l->n_experts - (int)r->n_added);
    if (own >= 0) {
        from = (size_t)json_integer_value(json_array_get(r->shard_end, (size_t)own));
        to = (size_t)json_integer_value(json_array_get(r->shard_end, (size_t)own + 1));
    }
    for (size_t s = 0; s < r->l->shards; s++)
        if (s < base || (s >= from && s < to)) sum += r->kept[s];
    return sum;
}

static void read_expert(struct reader *r, int k)
{
    uint64_t kept = kept_for(r, k);
    Mode__Commit *commit;
    char *path, label[64];
    snprintf(label, sizeof label, "train/expert-%d", k);
    if (open_output(r, label, &commit, &path, NULL)) {
        r->l->trained[k] = commit->rows_out;
        if (commit->rows_out != r->l->pool[k])
            problem(r->l, "%s was trained on %" PRIu64 " pairs of its group, which has %" PRIu64, label,
                    commit->rows_out, r->l->pool[k]);
        if (commit->rows_in != kept)
            problem(r->l, "%s saw %" PRIu64 " pairs, %" PRIu64 " were kept", label, commit->rows_in, kept);
    }
    close_output(commit, path);
}

static void read_all(struct reader *r)
{
    struct ledger *l = r->l;
    size_t i;
    json_t *node;
    uint64_t pools = 0, kept;
    json_array_foreach(json_object_get(r->plan, "nodes"), i, node)
    {
        const char *key = text_of(node, "key");
        struct mode_error err = {0};
        Mode__Commit *commit = NULL;
        enum mode_status st = mode_key_valid(key) ? mode_store_commit_get(r->store, &commit, key, &err)
                                                  : MODE_E_NOINPUT; /* not known yet */
        mode_index_put(&r->by_label, text_of(node, "label"), (uint32_t)i);
        l->n_tasks++;
        l->n_done += st == MODE_OK;
        if (st && st != MODE_E_NOINPUT)
            problem(l, "%s: %s", text_of(node, "label"), err.text);
        else if (st && !l->open)
            problem(l, "%s is not done", text_of(node, "label"));
        if (commit) mode__commit__free_unpacked(commit, NULL);
    }
    read_centres(r);
    for (size_t s = 0; s < l->shards; s++) read_captions(r, s);
    for (size_t s = 0; s < l->shards; s++) read_rows(r, s, "embed", "feat.safetensors", "feat", &l->embedded);
    for (size_t s = 0; s < l->shards; s++) read_rows(r, s, "assign", "assign.safetensors", "fine_id", &l->assigned);
    kept = l->fate[MODE_FATE_KEPT];
    for (int k = 0; k < l->n_experts; k++) {
        read_expert(r, k);
        pools += l->pool[k];
    }
    bool whole = l->n_done == l->n_tasks || !l->open;
    if (!whole) return;
    if (l->embedded != kept || l->assigned != kept || pools != kept)
        problem(l,
                "%" PRIu64 " pairs were kept, %" PRIu64 " embedded, %" PRIu64 " assigned, %" PRIu64
                " are in the experts' groups",
                kept, l->embedded, l->assigned, pools);
}

enum mode_status ledger_read(struct ledger *l, const char *workspace, const char *run, bool open,
                             struct mode_error *err)
{
    struct reader r = {.l = l};
    char *file = mode_xasprintf("%s/runs/%s/plan.json", workspace, run), *text = NULL;
    size_t size;
    json_error_t why;
    *l = (struct ledger){.open = open};
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(file)) {
        st = MODE_FAIL(err, MODE_E_NOINPUT, "%s has no run \"%s\" that was planned", workspace, run);
        goto out;
    }
    if ((st = mode_file_read(file, 1u << 30, &text, &size, err))) goto out;
    if (!(r.plan = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why))) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s:%d: %s", file, why.line, why.text);
        goto out;
    }
    json_int_t n = json_integer_value(json_object_get(r.plan, "experts"));
    l->shards = json_array_size(json_object_get(r.plan, "shards"));
    if (n < 1 || n > 10000) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %lld experts", file, (long long)n);
        goto out;
    }
    if ((st = mode_store_open(&r.store, workspace, err))) goto out;
    l->n_experts = (int)n;
    r.shard_end = json_object_get(r.plan, "shard_end");
    r.n_added = json_array_size(r.shard_end) ? json_array_size(r.shard_end) - 1 : 0;
    if (!json_array_size(r.shard_end) || r.n_added >= (size_t)n) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: shard_end does not fit %d experts", file, l->n_experts);
        goto out;
    }
    l->pool = mode_xcalloc((size_t)n, sizeof *l->pool);
    l->trained = mode_xcalloc((size_t)n, sizeof *l->trained);
    r.kept = mode_xcalloc(l->shards + 1, sizeof *r.kept);
    read_all(&r);
out:
    if (r.have_centres) mode_centres_clear(&r.centres);
    mode_index_clear(&r.by_label);
    mode_store_close(&r.store);
    json_decref(r.plan);
    free(r.kept);
    free(text);
    free(file);
    return st;
}

void ledger_clear(struct ledger *l)
{
    for (size_t i = 0; i < l->n_problems && i < LEDGER_PROBLEMS; i++) free(l->problem[i]);
    free(l->pool);
    free(l->trained);
    *l = (struct ledger){0};
}
