#include "data/leaks.h"

#include "base/parallel.h"

#include <stdlib.h>
#include <string.h>

#define NEAR_RMS             8
#define TEXTS_JOINED_MAX     6
#define PICTURES_PER_CAPTION 12

/* Indices of kept items in some order, with a key each. */
struct entry {
    const struct mode_demo_item *item;
    char *text;
    int64_t index;
};

/* --- duplicates --- */

static int by_pixels(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->item->source != y->item->source) return x->item->source < y->item->source ? -1 : 1;
    if (x->item->held != y->item->held) return x->item->held ? 1 : -1;
    int c = memcmp(x->item->sig.pixels, y->item->sig.pixels, sizeof x->item->sig.pixels);
    return c ? c : x->index < y->index ? -1 : 1;
}

static bool same_picture(const struct mode_demo_item *a, const struct mode_demo_item *b)
{
    return a->source == b->source && a->held == b->held && !memcmp(a->sig.pixels, b->sig.pixels, sizeof a->sig.pixels);
}

static bool same_signature(const struct mode_demo_item *a, const struct mode_demo_item *b)
{
    return a->sig.gradient == b->sig.gradient && !memcmp(a->sig.coarse, b->sig.coarse, sizeof a->sig.coarse);
}

void mode_demo_merge_same(struct mode_demo_set *set)
{
    struct entry *e = mode_xcalloc((size_t)set->n + 1, sizeof *e);
    int64_t n = 0;
    for (int64_t i = 0; i < set->n; i++)
        if (set->items[i].fate == MODE_DEMO_KEPT) e[n++] = (struct entry){&set->items[i], NULL, i};
    if (n) qsort(e, (size_t)n, sizeof *e, by_pixels);
    for (int64_t i = 0, j; i < n; i = j) {
        struct mode_demo_item *first = &set->items[e[i].index];
        bool conflict[MODE_DEMO_TASKS] = {false};
        for (j = i + 1; j < n && same_picture(e[i].item, e[j].item); j++) {
            struct mode_demo_item *copy = &set->items[e[j].index];
            if (first->texts.n < TEXTS_JOINED_MAX) mode_demo_texts_add(&first->texts, copy->texts.text[0]);
            for (int t = 0; t < MODE_DEMO_TASKS; t++) {
                if (first->label[t] && copy->label[t] && strcmp(first->label[t], copy->label[t])) conflict[t] = true;
                if (!first->label[t] && copy->label[t]) mode_demo_item_label(first, t, copy->label[t]);
            }
            copy->fate = MODE_DEMO_SAME_PICTURE;
        }
        for (int t = 0; t < MODE_DEMO_TASKS; t++)
            if (conflict[t]) {
                free(first->label[t]);
                first->label[t] = NULL;
            }
    }
    free(e);

    /* A held-out drawing with a near-duplicate in another top folder of openclipart has two correct categories. */
    for (int64_t i = 0; i < set->n; i++) {
        struct mode_demo_item *it = &set->items[i];
        char **label = &it->label[MODE_DEMO_TASK_CLIPART_CATEGORY];
        if (it->fate != MODE_DEMO_KEPT || !*label) continue;
        size_t top = strcspn(it->category, "/");
        for (int64_t k = 0; k < set->n && *label; k++) {
            const struct mode_demo_item *o = &set->items[k];
            if (o->source != it->source || o == it || !o->jpeg || !same_signature(it, o)) continue;
            if (strcspn(o->category, "/") == top && !memcmp(o->category, it->category, top)) continue;
            free(*label);
            *label = NULL;
        }
    }
}

/* --- training pictures that leak held-out ones --- */

struct search {
    struct mode_demo_set *set;
    int64_t n;
    const struct mode_demo_item **held;
};

static bool is_near(const struct mode_demo_signature *a, const struct mode_demo_signature *b)
{
    /* squared distance below limit; often the means alone exceed it: (sum a - sum b)^2 / pixels <= squared distance */
    const int64_t limit = (int64_t)NEAR_RMS * NEAR_RMS * MODE_DEMO_THUMB;
    int64_t bound = 0;
    for (int c = 0; c < 3; c++) {
        int64_t d = a->thumb_sum[c] - b->thumb_sum[c];
        bound += d * d;
    }
    if (bound >= limit * (MODE_DEMO_THUMB / 3)) return false;
    int64_t sum = 0;
    for (int i = 0; i < MODE_DEMO_THUMB; i += 72) {
        int32_t part = 0;
        for (int k = i; k < i + 72; k++) {
            int32_t d = a->thumb[k] - b->thumb[k];
            part += d * d;
        }
        sum += part;
        if (sum >= limit) return false;
    }
    return true;
}

static void search_one(void *ctx, int64_t i, int thread)
{
    (void)thread;
    struct search *s = ctx;
    struct mode_demo_item *it = &s->set->items[i];
    if (it->held || it->fate != MODE_DEMO_KEPT) return;
    for (int64_t k = 0; k < s->n; k++) {
        const struct mode_demo_item *h = s->held[k];
        if (h->series == MODE_DEMO_SERIES_FLAG) continue;
        if (h->series != MODE_DEMO_SERIES_NONE && h->series == it->series) continue;
        if (same_signature(it, h)) {
            it->fate = MODE_DEMO_LEAK_SIGNATURE;
            return;
        }
        if (is_near(&it->sig, &h->sig)) it->fate = MODE_DEMO_LEAK_NEAR; /* a later one may have the signature */
    }
}

void mode_demo_drop_leaks(struct mode_demo_set *set)
{
    struct search s = {.set = set, .held = mode_xcalloc((size_t)set->n + 1, sizeof *s.held)};
    for (int64_t i = 0; i < set->n; i++)
        if (set->items[i].held && set->items[i].fate == MODE_DEMO_KEPT) s.held[s.n++] = &set->items[i];
    mode_parallel_for(set->n, search_one, &s);
    free(s.held);
}

/* --- captions --- */

static int by_text(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int c = strcmp(x->text, y->text);
    return c ? c : x->index < y->index ? -1 : 1;
}

void mode_demo_cap_captions(struct mode_demo_set *set)
{
    struct entry *e = mode_xcalloc((size_t)set->n + 1, sizeof *e);
    int64_t n = 0;
    for (int64_t i = 0; i < set->n; i++) {
        struct mode_demo_item *it = &set->items[i];
        if (!it->held && it->fate == MODE_DEMO_KEPT) e[n++] = (struct entry){it, mode_demo_fold(it->texts.text[0]), i};
    }
    if (n) qsort(e, (size_t)n, sizeof *e, by_text);
    for (int64_t i = 0, run = 0; i < n; i++) {
        run = i && !strcmp(e[i].text, e[i - 1].text) ? run + 1 : 0;
        if (run >= PICTURES_PER_CAPTION) set->items[e[i].index].fate = MODE_DEMO_CAPTION_TAKEN;
    }
    for (int64_t i = 0; i < n; i++) free(e[i].text);
    free(e);
}

/* --- classes --- */

void mode_demo_prune_classes(struct mode_demo_set *set)
{
    struct entry *e = mode_xcalloc((size_t)set->n + 1, sizeof *e);
    for (int t = 0; t < MODE_DEMO_TASKS; t++) {
        bool retrieval = mode_demo_task_info[t].kind == 2;
        int64_t n = 0;
        for (int64_t i = 0; i < set->n; i++) {
            struct mode_demo_item *it = &set->items[i];
            if (it->held && it->fate == MODE_DEMO_KEPT && it->label[t])
                e[n++] = (struct entry){it, mode_demo_fold(retrieval ? it->texts.text[0] : it->label[t]), i};
        }
        if (n) qsort(e, (size_t)n, sizeof *e, by_text);
        for (int64_t i = 0, j; i < n; i = j) {
            for (j = i + 1; j < n && !strcmp(e[i].text, e[j].text); j++) continue;
            if (retrieval ? j - i == 1 : j - i >= mode_demo_task_info[t].fewest) continue;
            for (int64_t k = i; k < j; k++) {
                char **label = &set->items[e[k].index].label[t];
                free(*label);
                *label = NULL;
            }
        }
        for (int64_t i = 0; i < n; i++) free(e[i].text);
    }
    free(e);
}
