/* The most distinctive words of each expert's captions. */
#include "pipeline/corpus_words.h"
#include "base/str.h"
#include "pipeline/corpus.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static bool is_stop_word(const char *word)
{
    static const char *const stop[] = {"an", "and", "are", "as", "at", "by",  "for",  "from", "in",  "is",
                                       "it", "its", "of",  "on", "or", "the", "this", "to",   "with"};
    for (size_t i = 0; i < sizeof stop / sizeof *stop; i++)
        if (strcmp(word, stop[i]) == 0) return true;
    return false;
}

void mode_corpus_words(const char *caption, void (*fn)(void *ctx, const char *word, size_t len), void *ctx)
{
    char word[64];
    size_t len = 0;
    for (const unsigned char *p = (const unsigned char *)caption;; p++) {
        bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p >= 0x80;
        if (letter) {
            if (len < sizeof word) word[len] = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
            len++;
            continue;
        }
        if (len >= 2 && len < sizeof word) {
            word[len] = 0;
            fn(ctx, word, len);
        }
        len = 0;
        if (!*p) return;
    }
}

static void rehash(struct mode_word_table *t, const struct mode_word_entry *old, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!old[i].text) continue;
        size_t at = (size_t)old[i].hash & (t->cap - 1);
        while (t->entry[at].text) at = (at + 1) & (t->cap - 1);
        t->entry[at] = old[i];
    }
}

static void grow(struct mode_word_table *t)
{
    size_t n = t->cap;
    struct mode_word_entry *old = t->entry;
    t->cap = n ? 2 * n : 4096;
    t->entry = mode_xcalloc(t->cap, sizeof *t->entry);
    rehash(t, old, n);
    free(old);
}

static int64_t captions_of(const struct mode_word_entry *e, int n)
{
    int64_t sum = 0;
    for (int c = 0; c < n; c++) sum += e->count[c];
    return sum;
}

/* The vocabulary grows without bound, but most words occur in one caption only and are never shown. So the rarest words
 * (in at most `least` captions so far) are dropped; if they occur again they are counted from zero. */
static void prune(struct mode_word_table *t)
{
    struct mode_word_entry *old = t->entry;
    for (int64_t least = 1; t->used > MODE_WORDS_MOST / 2; least++)
        for (size_t i = 0; i < t->cap; i++) {
            if (!old[i].text || captions_of(&old[i], t->n) > least) continue;
            free(old[i].text);
            free(old[i].count);
            old[i].text = NULL;
            t->used--;
        }
    t->entry = mode_xcalloc(t->cap, sizeof *t->entry); /* removal breaks probe sequences, so rebuild the table */
    rehash(t, old, t->cap);
    free(old);
}

struct add {
    struct mode_word_table *t;
    int expert;
};

static void add_word(void *ctx, const char *word, size_t len)
{
    struct add *a = ctx;
    struct mode_word_table *t = a->t;
    if (t->used == MODE_WORDS_MOST) prune(t);
    if (t->used * 2 >= t->cap) grow(t);
    uint64_t hash = XXH64(word, len, 0);
    size_t at = (size_t)hash & (t->cap - 1);
    while (t->entry[at].text && (t->entry[at].hash != hash || strcmp(t->entry[at].text, word) != 0))
        at = (at + 1) & (t->cap - 1);
    struct mode_word_entry *e = &t->entry[at];
    if (!e->text) {
        e->text = mode_xstrdup(word);
        e->hash = hash;
        e->count = mode_xcalloc((size_t)t->n, sizeof *e->count);
        t->used++;
    }
    if (e->last == t->caption) return; /* a word counts once per caption */
    e->last = t->caption;
    e->count[a->expert]++;
    t->total[a->expert]++;
}

void mode_word_table_init(struct mode_word_table *t, int n)
{
    *t = (struct mode_word_table){.n = n, .total = mode_xcalloc((size_t)n, sizeof(int64_t))};
}

void mode_word_table_add(struct mode_word_table *t, const char *caption, int expert)
{
    struct add a = {t, expert};
    t->caption++;
    mode_corpus_words(caption, add_word, &a);
}

void mode_word_table_clear(struct mode_word_table *t)
{
    for (size_t i = 0; i < t->cap; i++) {
        free(t->entry[i].text);
        free(t->entry[i].count);
    }
    free(t->entry);
    free(t->total);
    *t = (struct mode_word_table){0};
}

/* Log odds ratio of the word in this expert against all others, with an informative Dirichlet prior (proportional to
 * its overall frequency), divided by its standard error (Monroe, Colaresi and Quinn 2008): words that are equally
 * frequent everywhere score 0, rare words low. */
static double log_odds(double mine, double my_total, double all, double all_total, double prior)
{
    double other = all - mine, other_total = all_total - my_total, a = prior * all / all_total;
    double x = log((mine + a) / (my_total + prior - mine - a)) - log((other + a) / (other_total + prior - other - a));
    return x / sqrt(1 / (mine + a) + 1 / (other + a));
}

void mode_word_table_top(const struct mode_word_table *t, int expert, struct mode_corpus_expert *out)
{
    double all_total = 0;
    for (int c = 0; c < t->n; c++) all_total += (double)t->total[c];
    for (size_t i = 0; i < t->cap; i++) {
        const struct mode_word_entry *e = &t->entry[i];
        if (!e->text || e->count[expert] < 2 || is_stop_word(e->text)) continue;
        double all = (double)captions_of(e, t->n), score = (double)e->count[expert];
        if (t->n > 1) score = log_odds((double)e->count[expert], (double)t->total[expert], all, all_total, 500);
        if (score <= 0) continue;
        int at = out->n_words;
        while (at > 0 && (out->word[at - 1].score < score ||
                          (out->word[at - 1].score == score && strcmp(out->word[at - 1].text, e->text) > 0)))
            at--;
        if (at >= MODE_CORPUS_WORDS) continue;
        if (out->n_words == MODE_CORPUS_WORDS) free(out->word[--out->n_words].text);
        memmove(&out->word[at + 1], &out->word[at], (size_t)(out->n_words - at) * sizeof *out->word);
        out->word[at] = (struct mode_corpus_word){mode_xstrdup(e->text), score, e->count[expert]};
        out->n_words++;
    }
}
