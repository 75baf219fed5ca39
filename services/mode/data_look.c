#include "data_look.h"

#include "data/caption_text.h"
#include "data/sample_json.h"
#include "fetching.h"
#include "pipeline/sources.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

enum { SAMPLES = 500, FIELDS = 48 };

/* A place where captions may be. */
struct place {
    char selector[DATA_LOOK_BYTES];
    struct mode_text_keys keys; /* this one */
    uint64_t n, words;          /* usable captions of the first samples, and their words */
};

struct places {
    struct place place[FIELDS];
    size_t n;
};

static void add_place(struct places *p, const char *selector)
{
    struct place new = {0};
    const char *text = new.selector;
    if (p->n == FIELDS || strlen(selector) >= sizeof new.selector || strchr(selector, ';')) return;
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->place[i].selector, selector) == 0) return;
    strcpy(new.selector, selector);
    if (!mode_text_keys_parse(&new.keys, &text, 1, NULL)) p->place[p->n++] = new;
}

static void add_fields(struct places *p, const char *ext, const char *data, size_t size)
{
    json_t *root, *v;
    const char *name;
    char why[MODE_WHY_BYTES], selector[DATA_LOOK_BYTES];
    if (mode_sample_json(&root, data, size, why) != MODE_FATE_KEPT) return;
    json_object_foreach(root, name, v)
    {
        if (!json_is_string(v) && !json_is_array(v)) continue;
        if (snprintf(selector, sizeof selector, "%s:%s%s", ext, name, json_is_array(v) ? "[]" : "") <
            (int)sizeof selector)
            add_place(p, selector);
    }
    json_decref(root);
}

static bool is_json(const char *ext)
{
    const size_t n = strlen(ext);
    return n >= 4 && strcmp(ext + n - 4, "json") == 0 && (n == 4 || ext[n - 5] == '.');
}

static bool is_picture(const char *ext)
{
    static const char *const pictures[] = {"jpg", "jpeg", "png", "webp"};
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++)
        if (strcmp(ext, pictures[i]) == 0) return true;
    return false;
}

static uint64_t words_of(const char *text)
{
    uint64_t n = 1;
    for (; *text; text++) n += *text == ' ' && text[1] != ' ';
    return n;
}

/* Every member and JSON field of the first samples, with the captions found there. */
static void find_places(struct places *p, const struct mode_tar_data *d, const struct mode_sample_list *s)
{
    struct mode_text_choice choice;
    static const char *const standard[] = {"txt", "json:caption", "json:texts[]"};
    for (size_t i = 0; i < sizeof standard / sizeof *standard; i++) add_place(p, standard[i]);
    const size_t n = s->n_groups < SAMPLES ? s->n_groups : SAMPLES;
    for (size_t g = 0; g < n; g++)
        for (size_t i = 0; i < s->groups[g].n; i++) {
            const struct mode_member *m = &s->members[s->groups[g].first + i];
            if (!m->whole || is_picture(m->ext)) continue;
            if (is_json(m->ext))
                add_fields(p, m->ext, (const char *)d->data + m->offset, m->size);
            else
                add_place(p, m->ext);
        }
    for (size_t g = 0; g < n; g++)
        for (size_t i = 0; i < p->n; i++) {
            mode_text_choose(&choice, &p->place[i].keys, d->data, s, &s->groups[g], false,
                             mode_rng_for(0, MODE_RNG_CAPTION, 0, g));
            if (choice.fate == MODE_FATE_KEPT) {
                p->place[i].n++;
                p->place[i].words += words_of(choice.texts[0].caption);
            }
            mode_text_choice_clear(&choice);
        }
}

/* Sentences, not keys, addresses or numbers: three words on average. */
static bool reads_like_captions(const struct place *p)
{
    return p->n && p->words >= 3 * p->n;
}

/* The rank of a field by its usual name; the last: none of them. */
static size_t rank_of(const char *selector)
{
    static const char *const usual[] = {"caption", "captions", "text",        "texts",
                                        "alt",     "alt_text", "description", "title"};
    const char *field = strchr(selector, ':');
    field = field ? field + 1 : selector;
    size_t i = 0;
    while (i < sizeof usual / sizeof *usual &&
           (strncasecmp(field, usual[i], strlen(usual[i])) != 0 ||
            strspn(field + strlen(usual[i]), "[]") != strlen(field + strlen(usual[i]))))
        i++;
    return i;
}

static int by_name_then_words(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    const size_t i = rank_of(x->selector), j = rank_of(y->selector);
    if (i != j) return i < j ? -1 : 1;
    if (x->words * y->n != y->words * x->n) return x->words * y->n > y->words * x->n ? -1 : 1;
    return strcmp(x->selector, y->selector);
}

/* The default places that have captions; if none has, the field that is most likely to be one. */
static void choose_keys(struct data_look *look, struct places *p)
{
    enum { STANDARD = 3 }; /* as find_places began */
    for (size_t i = 0; i < STANDARD; i++)
        if (p->place[i].n) strcpy(look->key[look->n_keys++], p->place[i].selector);
    if (p->n > STANDARD) qsort(p->place + STANDARD, p->n - STANDARD, sizeof *p->place, by_name_then_words);
    for (size_t i = STANDARD; i < p->n; i++) {
        if (!reads_like_captions(&p->place[i])) continue;
        if (look->n_keys == 0)
            strcpy(look->key[look->n_keys++], p->place[i].selector);
        else if (look->n_others < DATA_LOOK_OTHERS)
            strcpy(look->other[look->n_others++], p->place[i].selector);
    }
}

static int by_number(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Samples with a picture and a caption, and the number of distinct captions among them. */
static uint64_t count_pairs(struct data_look *look, const struct mode_tar_data *d, const struct mode_sample_list *s)
{
    struct mode_text_keys keys;
    struct mode_text_choice choice;
    const char *texts[DATA_LOOK_KEYS];
    for (size_t i = 0; i < look->n_keys; i++) texts[i] = look->key[i];
    MODE_ASSERT(mode_text_keys_parse(&keys, texts, look->n_keys, NULL) == MODE_OK);
    uint64_t *hash = mode_xmalloc((s->n_groups + 1) * sizeof *hash), distinct = 0;
    for (size_t g = 0; g < s->n_groups; g++) {
        mode_text_choose(&choice, &keys, d->data, s, &s->groups[g], false, mode_rng_for(0, MODE_RNG_CAPTION, 0, g));
        if (choice.fate == MODE_FATE_KEPT && mode_group_image(s, &s->groups[g]))
            hash[look->kept++] = XXH3_64bits(choice.texts[0].caption, strlen(choice.texts[0].caption));
        mode_text_choice_clear(&choice);
    }
    qsort(hash, look->kept, sizeof *hash, by_number);
    for (uint64_t i = 0; i < look->kept; i++) distinct += i == 0 || hash[i] != hash[i - 1];
    free(hash);
    return distinct;
}

static enum mode_status fail_captions(const struct data_look *look, const struct places *p, struct mode_error *err)
{
    struct mode_str seen = {0};
    for (size_t i = 0; i < p->n; i++)
        if (p->place[i].n && seen.len < 300) mode_str_printf(&seen, "%s%s", seen.len ? ", " : "", p->place[i].selector);
    enum mode_status st = MODE_FAIL(
        err, MODE_E_FORMAT,
        "%s: no captions are found in its %llu sample%s (texts there: %s); expected KEY.txt or "
        "a text in KEY.json beside each picture. HINT: `mode inspect` shows what is in a shard",
        look->first, (unsigned long long)look->samples, MODE_PLURAL(look->samples), seen.len ? seen.data : "none");
    mode_str_clear(&seen);
    return st;
}

/* scale: all shards' size by that of the first */
static enum mode_status look_into(struct data_look *look, const char *path, double scale, struct mode_error *err)
{
    struct mode_tar_data d;
    struct mode_sample_list s;
    enum mode_status st = mode_tar_data_open(&d, path, err);
    if (st) return st;
    if ((st = mode_samples_list(&s, &d, path, err))) {
        mode_tar_data_close(&d);
        return st;
    }
    struct places *p = mode_xcalloc(1, sizeof *p);
    look->samples = s.n_groups;
    find_places(p, &d, &s);
    choose_keys(look, p);
    if (look->n_keys) look->captions = (uint64_t)llround(scale * (double)count_pairs(look, &d, &s));
    if (!look->kept) st = fail_captions(look, p, err);
    look->pairs = (uint64_t)llround(scale * (double)look->kept);
    free(p);
    mode_sample_list_clear(&s);
    mode_tar_data_close(&d);
    return st;
}

static bool show_first(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return fetching_show("the first shard", done, total);
}

enum mode_status data_look(struct data_look *look, const char *source, struct mode_error *err)
{
    const struct mode_remote_watch watch = {.going = show_first};
    struct mode_shards shards;
    struct mode_shard_file file = {.hold = -1};
    char *sources[] = {(char *)source};
    uint64_t bytes = 0;
    *look = (struct data_look){0};
    enum mode_status st = mode_sources_expand(&shards, sources, 1, ".", err);
    if (!st) {
        struct mode_shard *first = &shards.shard[0];
        look->n_shards = shards.n;
        look->counted = shards.n == 1;
        look->first = mode_xstrdup(first->path);
        for (size_t i = 0; i < shards.n; i++) bytes += shards.shard[i].size; /* of remote ones unknown, 0 */
        const double scale = first->size ? (double)bytes / (double)first->size : (double)shards.n;
        st = mode_shards_look(&(struct mode_shards){first, 1}, err);
        if (!st) st = mode_shard_hold(&file, first->path, &watch, err);
        if (!st && (st = look_into(look, file.path, scale, err))) mode_error_rename(err, file.path, look->first);
    }
    mode_shard_release(&file);
    mode_shards_clear(&shards);
    return st;
}

void data_look_clear(struct data_look *look)
{
    free(look->first);
    *look = (struct data_look){0};
}
