/* plan_pools.c - the number of pairs of each expert, and the check that they suffice for training. */
#include "plan.h"

#include "base/str.h"
#include "cluster/centres.h"
#include "pipeline/assign.h"

#include <jansson.h>
#include <stdlib.h>

bool plan_count_pairs(struct plan *p, const char *note)
{
    json_t *o = note ? json_loads(note, 0, NULL) : NULL, *pairs = json_object_get(o, "pairs");
    size_t n = json_array_size(pairs);
    bool good = n && n <= plan_experts(p);
    for (size_t k = 0; k < n && good; k++) p->pairs[k] += (uint64_t)json_integer_value(json_array_get(pairs, k));
    json_decref(o);
    return good;
}

static enum mode_status output_path(char **path, const struct plan *p, const struct plan_node *from, const char *output,
                                    struct mode_error *err)
{
    const Mode__Blob *blob = plan_output(from, output);
    if (!blob) return MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s has no %s", from->label, output);
    return mode_store_blob_path(p->store, path, blob->digest, blob->size, err);
}

enum mode_status plan_pool_size(uint64_t *out, struct plan *p, uint32_t k, struct mode_error *err)
{
    struct mode_centres centres = {0};
    enum mode_status st = MODE_OK;
    uint64_t *pairs = NULL;
    struct plan_shards shards = plan_expert_shards(p, k);
    *out = p->pairs[k];
    for (uint32_t at = 0; at < plan_shards_count(shards) && !st; at++) {
        uint32_t i = at < shards.to[0] ? at : shards.from[1] + at - shards.to[0];
        const struct plan_node *x = &p->node[p->first[PLAN_ASSIGN] + i];
        char *path = NULL;
        if (x->counted) continue;
        if (!pairs) {
            if ((st = output_path(&path, p, &p->node[plan_centres_node(p, k)], "centres.safetensors", err))) break;
            st = mode_centres_load(&centres, path, err);
            pairs = mode_xcalloc((size_t)centres.n + k + 1, sizeof *pairs);
            free(path);
            path = NULL;
        }
        if (!st) st = output_path(&path, p, x, "assign.safetensors", err);
        if (!st) st = mode_assign_count(pairs, path, centres.fine_to_coarse, centres.m, err);
        free(path);
    }
    if (pairs) *out += pairs[k];
    free(pairs);
    mode_centres_clear(&centres);
    return st;
}

static uint64_t kept_pairs(const struct plan *p, struct plan_shards s)
{
    uint64_t kept = 0;
    for (int part = 0; part < 2; part++)
        for (uint32_t i = s.from[part]; i < s.to[part]; i++)
            kept += p->node[p->first[PLAN_CAPTIONS] + i].commit->rows_out;
    return kept;
}

enum mode_status plan_selected_pairs(uint64_t *out, const struct plan *p, uint32_t j, struct mode_error *err)
{
    const struct plan_node *x = &p->node[p->first[PLAN_SELECT] + j];
    json_t *o = x->commit->note ? json_loads(x->commit->note, 0, NULL) : NULL;
    const json_t *pairs = json_object_get(o, "pairs");
    const bool good = json_is_integer(pairs);
    *out = good ? (uint64_t)json_integer_value(pairs) : 0;
    json_decref(o);
    return good ? MODE_OK
                : MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s does not say how many pairs it selects",
                            x->label);
}

/* Number of out-of-cluster pairs in an epoch. */
static uint64_t others_of(const struct plan *p, uint64_t all, uint64_t own)
{
    return all > own ? (uint64_t)(p->spec.train.out_ratio * (double)(all - own)) : 0;
}

enum mode_status plan_check_selected(struct plan *p, uint32_t j, struct mode_error *err)
{
    const uint64_t batch = p->spec.train.batch, all = kept_pairs(p, plan_base_shards(p));
    const struct mode_spec_for *x = &p->spec.experts_for[j];
    uint64_t own;
    enum mode_status st = plan_selected_pairs(&own, p, j, err);
    if (st) return st;
    const uint64_t others = others_of(p, all, own);
    if (own > 0 && own + others >= batch) return MODE_OK;
    return MODE_FAIL(
        err, MODE_E_VALUE,
        "experts_for, line %d: the words of %s select clusters with %llu of the %llu pairs, and %llu of the others per "
        "epoch: too few for train.batch = %llu. HINT: a larger nearest, more names, or a smaller train.batch",
        x->line, x->name, (unsigned long long)own, (unsigned long long)all, (unsigned long long)others,
        (unsigned long long)batch);
}

enum mode_status plan_check_pools(struct plan *p, uint32_t shard, struct mode_error *err)
{
    const uint32_t coarse = (uint32_t)p->spec.cluster.coarse, first = plan_shard_expert(p, shard),
                   end = first < coarse ? coarse : first + 1, source = end - coarse;
    const uint64_t batch = p->spec.train.batch;
    p->all_counted &= p->node[p->first[PLAN_ASSIGN] + shard].counted;
    if (++p->n_assigned[source] < p->shard_end[source] - (source ? p->shard_end[source - 1] : 0)) return MODE_OK;
    if (!p->all_counted) return MODE_OK; /* opening the assignments is left to the trainings, which check, too */
    const uint64_t all = kept_pairs(p, plan_expert_shards(p, first));
    for (uint32_t k = first; k < end; k++) {
        const uint64_t own = p->pairs[k];
        const uint64_t others = others_of(p, all, own);
        if (own > 0 && own + others >= batch) continue;
        return MODE_FAIL(err, MODE_E_VALUE,
                         "expert %u gets %llu of the %llu pairs, and %llu of the others per epoch: too few for "
                         "train.batch = %llu. HINT: a smaller train.batch, or %s",
                         k, (unsigned long long)own, (unsigned long long)all, (unsigned long long)others,
                         (unsigned long long)batch,
                         source ? "more data in this source of data.added" : "fewer experts (cluster.coarse)");
    }
    return MODE_OK;
}
