#include "data/samples.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const char *mode_ignored_name(enum mode_ignored i)
{
    switch (i) {
#define X(name, text)                                                                                                  \
    case MODE_IGNORED_##name: return text;
        MODE_IGNORED_MAP(X)
#undef X
    case MODE_IGNORED_COUNT: break;
    }
    return "?";
}

/* Keys of the runs so far: open addressing over group numbers (+ 1; 0 = free). */
struct key_set {
    size_t cap, n; /* cap is a power of two */
    uint32_t *slot;
};

static bool key_set_add(struct key_set *k, const struct mode_sample_list *s, uint32_t group)
{
    if ((k->n + 1) * 2 > k->cap) {
        const size_t cap = k->cap ? k->cap * 2 : 1024;
        uint32_t *slot = mode_xcalloc(cap, sizeof *slot);
        for (size_t i = 0; i < k->cap; i++) {
            if (!k->slot[i]) continue;
            const char *key = s->groups[k->slot[i] - 1].key;
            size_t j = XXH3_64bits(key, strlen(key)) & (cap - 1);
            while (slot[j]) j = (j + 1) & (cap - 1);
            slot[j] = k->slot[i];
        }
        free(k->slot);
        k->slot = slot;
        k->cap = cap;
    }
    const char *key = s->groups[group].key;
    size_t j = XXH3_64bits(key, strlen(key)) & (k->cap - 1);
    for (; k->slot[j]; j = (j + 1) & (k->cap - 1))
        if (strcmp(s->groups[k->slot[j] - 1].key, key) == 0) return false;
    k->slot[j] = group + 1;
    k->n++;
    return true;
}

static bool is_unsafe(const char *name)
{
    if (name[0] == '/') return true;
    for (const char *p = name; p; p = strchr(p, '/')) {
        if (*p == '/') p++;
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0')) return true;
    }
    return false;
}

/* First component begins and ends with two underscores. */
static bool is_meta(const char *name)
{
    const char *end = strchrnul(name, '/');
    return end - name >= 4 && strncmp(name, "__", 2) == 0 && strncmp(end - 2, "__", 2) == 0;
}

/* Why a member belongs to no sample; MODE_IGNORED_COUNT: it does, and *dot is the dot between key and extension. */
static enum mode_ignored judge(const struct mode_tar_member *m, const char **dot)
{
    switch (m->kind) {
    case MODE_TAR_LINK: return MODE_IGNORED_LINK;
    case MODE_TAR_DEVICE: return MODE_IGNORED_DEVICE;
    case MODE_TAR_SPARSE: return MODE_IGNORED_SPARSE;
    case MODE_TAR_FOLDER:
    case MODE_TAR_OTHER: return MODE_IGNORED_OTHER;
    case MODE_TAR_FILE: break;
    }
    if (is_unsafe(m->name)) return MODE_IGNORED_UNSAFE;
    if (is_meta(m->name)) return MODE_IGNORED_META;
    const char *base = mode_path_base(m->name);
    if (base[0] == '.') return MODE_IGNORED_HIDDEN;
    *dot = strchr(base, '.');
    if (!*dot || (*dot)[1] == '\0') return MODE_IGNORED_NO_EXTENSION;
    return MODE_IGNORED_COUNT;
}

static char *lower(const char *s)
{
    char *out = mode_xstrdup(s);
    for (char *p = out; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    return out;
}

static void *grow(void *v, size_t n, size_t size) /* before element n is added; doubles */
{
    return (n & (n - 1)) == 0 ? mode_xrealloc(v, (n ? 2 * n : 1) * size) : v;
}

static void add(struct mode_sample_list *s, struct key_set *keys, const struct mode_tar_member *m, const char *dot)
{
    const size_t key_size = (size_t)(dot - m->name);
    struct mode_group *g = s->n_groups ? &s->groups[s->n_groups - 1] : NULL;
    char *ext = lower(dot + 1);
    const bool same_key = g && strlen(g->key) == key_size && memcmp(g->key, m->name, key_size) == 0;
    const bool repeats = same_key && mode_group_member(s, g, ext);
    if (!same_key || repeats) {
        s->groups = grow(s->groups, s->n_groups, sizeof *s->groups);
        g = &s->groups[s->n_groups++];
        *g = (struct mode_group){.header = m->header, .first = s->n_members};
        g->key = mode_xmalloc(key_size + 1);
        memcpy(g->key, m->name, key_size);
        g->key[key_size] = '\0';
        if (repeats) {
            s->duplicate_ext++;
            g->again = g[-1].again;
        } else
            g->again = !key_set_add(keys, s, (uint32_t)(s->n_groups - 1));
        s->non_contiguous += g->again;
    }
    s->members = grow(s->members, s->n_members, sizeof *s->members);
    s->members[s->n_members++] = (struct mode_member){
        .ext = ext, .offset = m->offset, .size = m->size, .whole = m->whole};
    g->n++;
    if (!m->whole) g->cut = true;
}

enum mode_status mode_samples_list(struct mode_sample_list *s, const struct mode_tar_data *d, const char *path,
                                   struct mode_error *err)
{
    struct key_set keys = {0};
    struct mode_tar t = mode_tar_walk(d, path);
    struct mode_tar_member m;
    enum mode_status st;
    bool got;
    *s = (struct mode_sample_list){0};
    while (!(st = mode_tar_next(&t, &m, &got, err)) && got) {
        const char *dot = NULL;
        if (m.kind == MODE_TAR_FOLDER) {
            s->n_folders++;
            continue;
        }
        const enum mode_ignored why = judge(&m, &dot);
        if (why == MODE_IGNORED_COUNT)
            add(s, &keys, &m, dot);
        else
            s->ignored[why]++;
    }
    s->cut = t.cut;
    s->cut_at = t.cut_at;
    s->after = t.after;
    mode_tar_clear(&t);
    free(keys.slot);
    if (st) mode_sample_list_clear(s);
    return st;
}

void mode_sample_list_clear(struct mode_sample_list *s)
{
    for (size_t i = 0; i < s->n_groups; i++) free(s->groups[i].key);
    for (size_t i = 0; i < s->n_members; i++) free(s->members[i].ext);
    free(s->groups);
    free(s->members);
    *s = (struct mode_sample_list){0};
}

uint64_t mode_sample_list_ignored(const struct mode_sample_list *s)
{
    uint64_t n = 0;
    for (int i = 0; i < MODE_IGNORED_COUNT; i++) n += s->ignored[i];
    return n;
}

const struct mode_member *mode_group_member(const struct mode_sample_list *s, const struct mode_group *g,
                                            const char *ext)
{
    for (size_t i = 0; i < g->n; i++)
        if (strcmp(s->members[g->first + i].ext, ext) == 0) return &s->members[g->first + i];
    return NULL;
}

const struct mode_member *mode_group_image(const struct mode_sample_list *s, const struct mode_group *g)
{
    static const char *const exts[] = {"jpg", "png", "jpeg", "webp"};
    for (size_t i = 0; i < sizeof exts / sizeof *exts; i++) {
        const struct mode_member *m = mode_group_member(s, g, exts[i]);
        if (m) return m;
    }
    return NULL;
}
