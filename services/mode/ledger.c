#include "ledger.h"

#include "base/str.h"
#include "cluster/centres.h"
#include "data/safetensors.h"
#include "ensemble/selection.h"
#include "run_record.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct ledger *l;
    struct run_record run;
    struct mode_centres centres;
    bool have_centres;
    uint64_t *kept; /* [shards] */
    uint64_t *fine; /* [centres.m] pairs of each fine cluster */
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

/* Opens a task's commit and one of its outputs; false after recording a problem. */
static bool open_output(struct reader *r, const char *label, Mode__Commit **commit, char **path, const char *output)
{
    struct mode_error err = {0};
    enum mode_status st = run_record_output(&r->run, commit, path, label, output, &err);
    /* read_all has checked every commit and recorded missing or damaged ones */
    if (st && (st == MODE_E_VALUE || *commit)) problem(r->l, "%s", err.text);
    return !st;
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
                problem(r->l, "%s: %u sample%s, %u kept, but the fates sum to %" PRIu64, label, c.n_samples,
                        MODE_PLURAL(c.n_samples), c.n_rows, sum);
            if (commit->rows_in != c.n_samples || commit->rows_out != c.n_rows || rejects + c.n_rows != c.n_samples)
                problem(r->l,
                        "%s: the commit record says %" PRIu64 " in, %" PRIu64 " out, %" PRIu64
                        " rejected; the file has %u sample%s, %u kept",
                        label, commit->rows_in, commit->rows_out, rejects, c.n_samples, MODE_PLURAL(c.n_samples),
                        c.n_rows);
            if (c.cut_at && !r->l->cut_shards++) {
                r->l->cut = mode_xstrdup(c.shard_name);
                r->l->cut_at = c.cut_at;
            }
            if (c.bad && !r->l->bad_shards++) r->l->bad = mode_xasprintf("%s: %s", c.shard_name, c.bad);
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
                r->l->pool[r->centres.fine_to_coarse[fine]]++, r->fine[fine]++;
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
    char label[64];
    run_record_centres_label(&r->run, label, sizeof label);
    if (open_output(r, label, &commit, &path, "centres.safetensors")) {
        if (mode_centres_load(&r->centres, path, &err))
            problem(r->l, "%s: %s", label, err.text);
        else if (r->centres.n != r->l->n_experts)
            problem(r->l, "%s: %d coarse groups, the run has %d experts", label, r->centres.n, r->l->n_experts);
        else
            r->have_centres = true;
    }
    if (r->have_centres) r->fine = mode_xcalloc((size_t)r->centres.m, sizeof *r->fine);
    close_output(commit, path);
}

/* Kept pairs of the shards of expert k: those of data.train, plus its own if it was added. */
static uint64_t kept_for(const struct reader *r, int k)
{
    uint64_t sum = 0;
    size_t base = (size_t)json_integer_value(json_array_get(r->run.shard_end, 0)), from = 0, to = 0;
    int own = k - (r->l->n_experts - (int)r->run.n_added);
    if (own >= 0) {
        from = (size_t)json_integer_value(json_array_get(r->run.shard_end, (size_t)own));
        to = (size_t)json_integer_value(json_array_get(r->run.shard_end, (size_t)own + 1));
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

/* A model of experts_for: its pairs are those of the selected clusters, and also belong to other experts. */
static void read_selected(struct reader *r, const char *name)
{
    struct ledger *l = r->l;
    struct mode_selection s = {0};
    struct mode_error err = {0};
    Mode__Commit *commit;
    char *path, *label = mode_xasprintf("select/%s", name);
    uint64_t pairs = 0;
    bool known = false;
    if (open_output(r, label, &commit, &path, "selection.safetensors")) {
        known = mode_selection_load(&s, path, &err) == MODE_OK;
        if (!known)
            problem(l, "%s: %s", label, err.text);
        else if (r->have_centres && s.m > r->centres.m)
            problem(l, "%s: chooses among %d fine centres, there are %d", label, s.m, r->centres.m);
        for (int i = 0; known && r->have_centres && i < s.m && i < r->centres.m; i++)
            pairs += s.chosen[i] ? r->fine[i] : 0;
    }
    close_output(commit, path);
    mode_selection_clear(&s);
    free(label);
    l->selected = mode_xrealloc(l->selected, (l->n_selected + 1) * sizeof *l->selected);
    l->selected[l->n_selected++] = (struct ledger_selected){mode_xstrdup(name), pairs};
    label = mode_xasprintf("train/%s", name);
    if (open_output(r, label, &commit, &path, NULL)) {
        if (known && r->have_centres && commit->rows_out != pairs)
            problem(l, "%s was trained on %" PRIu64 " pairs, the clusters that its words chose have %" PRIu64, label,
                    commit->rows_out, pairs);
        if (commit->rows_in != kept_for(r, 0))
            problem(l, "%s saw %" PRIu64 " pairs, %" PRIu64 " were kept", label, commit->rows_in, kept_for(r, 0));
    }
    close_output(commit, path);
    free(label);
}

static void read_all(struct reader *r)
{
    struct ledger *l = r->l;
    size_t i;
    json_t *node;
    uint64_t pools = 0, kept;
    json_array_foreach(json_object_get(r->run.plan, "nodes"), i, node)
    {
        const char *key = run_record_text(node, "key");
        struct mode_error err = {0};
        Mode__Commit *commit = NULL;
        enum mode_status st = mode_key_valid(key) ? mode_store_commit_get(r->run.store, &commit, key, &err)
                                                  : MODE_E_NOINPUT; /* not known yet */
        l->n_tasks++;
        l->n_done += st == MODE_OK;
        if (st && st != MODE_E_NOINPUT)
            problem(l, "%s: %s", run_record_text(node, "label"), err.text);
        else if (st && !l->open)
            problem(l, "%s is not done", run_record_text(node, "label"));
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
    size_t at = 0;
    for (const char *name; (name = run_record_selected(&r->run, &at));) read_selected(r, name);
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
    *l = (struct ledger){.open = open};
    enum mode_status st = run_record_open(&r.run, workspace, run, err);
    if (st) goto out;
    const size_t n = (size_t)r.run.n_experts;
    l->n_experts = r.run.n_experts;
    l->shards = r.run.n_shards;
    l->pool = mode_xcalloc(n, sizeof *l->pool);
    l->trained = mode_xcalloc(n, sizeof *l->trained);
    r.kept = mode_xcalloc(l->shards + 1, sizeof *r.kept);
    read_all(&r);
out:
    if (r.have_centres) mode_centres_clear(&r.centres);
    run_record_close(&r.run);
    free(r.kept);
    free(r.fine);
    return st;
}

void ledger_clear(struct ledger *l)
{
    for (size_t i = 0; i < l->n_problems && i < LEDGER_PROBLEMS; i++) free(l->problem[i]);
    for (size_t i = 0; i < l->n_selected; i++) free(l->selected[i].name);
    free(l->selected);
    free(l->cut);
    free(l->bad);
    free(l->pool);
    free(l->trained);
    *l = (struct ledger){0};
}
