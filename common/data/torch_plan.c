/* Parses the untrusted structure: the zip's directory, the pickles, the choice of the state dict. It runs where no
 * system call is allowed, so nothing here allocates, prints or opens files. */
#include "data/torch_file.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PICKLE = 16 << 20, MAX_DEPTH = 64, MAX_NAME = 512, MAX_ZIP_NAME = 1024 };

struct reader;
struct extent {
    uint64_t begin, end;
};
/* Locates the data of a storage. */
typedef enum mode_status place_fn(struct reader *r, struct extent *e, const struct mode_pickle_value *storage);

struct reader {
    struct mode_torch_plan *plan;
    struct mode_scratch *scratch;
    const uint8_t *data;
    size_t size;
    struct mode_error *err;
    size_t n_visits, n_aside;
    place_fn *place;
    void *places; /* struct zip or struct row */
};

static uint64_t le(const uint8_t *p, int n)
{
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)p[i] << (8 * i);
    return x;
}

/* ---- zip ------------------------------------------------------------------------------------------------- */

struct member {
    const char *name; /* in the file, not NUL-terminated */
    size_t n_name;
    uint64_t local; /* byte of its local header */
    uint64_t size;
    bool stored;
};

struct zip {
    struct member *member;
    size_t n;
    uint32_t *slot; /* hash table of member index + 1 */
    size_t n_slots; /* a power of two */
    uint64_t directory;
};

static uint64_t hash(const char *name, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)name[i]) * 1099511628211u;
    return h ^ h >> 32;
}

static struct member *zip_find(const struct zip *z, const char *name, size_t n)
{
    for (size_t i = hash(name, n) & (z->n_slots - 1); z->slot[i]; i = (i + 1) & (z->n_slots - 1)) {
        struct member *m = &z->member[z->slot[i] - 1];
        if (m->n_name == n && memcmp(m->name, name, n) == 0) return m;
    }
    return NULL;
}

/* Locates the directory from the end record (and the 64-bit one before it). */
static enum mode_status zip_directory(struct reader *r, uint64_t *at, uint64_t *bytes, uint64_t *n)
{
    enum { END = 22, LOCATOR = 20, END64 = 56, COMMENT = 65535 };
    size_t from = r->size > END + COMMENT ? r->size - END - COMMENT : 0, end = 0;
    if (r->size >= END)
        for (size_t i = r->size - END + 1; i-- > from && !end;)
            if (memcmp(r->data + i, "PK\5\6", 4) == 0 && i + END + le(r->data + i + 20, 2) == r->size) end = i + 1;
    if (!end)
        return MODE_FAIL(r->err, MODE_E_FORMAT,
                         "the zip's directory is missing at its end. HINT: a truncated download?");
    const uint8_t *p = r->data + --end;
    *n = le(p + 10, 2);
    *bytes = le(p + 12, 4);
    *at = le(p + 16, 4);
    if (end >= LOCATOR && memcmp(p - LOCATOR, "PK\6\7", 4) == 0) {
        uint64_t e = le(p - LOCATOR + 8, 8);
        if (e > end || end - e < END64 || memcmp(r->data + e, "PK\6\6", 4) != 0)
            return MODE_FAIL(r->err, MODE_E_FORMAT, "the zip's 64-bit end record is not where its locator says");
        *n = le(r->data + e + 32, 8);
        *bytes = le(r->data + e + 40, 8);
        *at = le(r->data + e + 48, 8);
    }
    if (*at > end || *bytes > end - *at || *n > *bytes / 46)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "the zip's directory does not lie in the file");
    if (*n > 2 * MODE_TORCH_MAX_TENSORS)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "the zip holds %llu files, at most %d are read", (unsigned long long)*n,
                         2 * MODE_TORCH_MAX_TENSORS);
    return MODE_OK;
}

/* Sizes that do not fit 32 bits are in extra field 1, in this order, and only those. */
static bool zip_wide(const uint8_t *extra, size_t n, uint64_t *size, uint64_t *packed, uint64_t *local)
{
    uint64_t *wide[] = {size, packed, local};
    for (size_t at = 0; n - at >= 4;) {
        size_t id = le(extra + at, 2), len = le(extra + at + 2, 2);
        if (len > n - at - 4) return false;
        if (id == 1) {
            const uint8_t *p = extra + at + 4, *end = p + len;
            for (int i = 0; i < 3; i++)
                if (*wide[i] == UINT32_MAX) {
                    if (end - p < 8) return false;
                    *wide[i] = le(p, 8);
                    p += 8;
                }
            return true;
        }
        at += 4 + len;
    }
    return *size != UINT32_MAX && *packed != UINT32_MAX && *local != UINT32_MAX;
}

static enum mode_status zip_read(struct reader *r, struct zip *z)
{
    enum { HEAD = 46 };
    uint64_t at = 0, bytes = 0, n = 0;
    enum mode_status st = zip_directory(r, &at, &bytes, &n);
    if (st) return st;
    z->directory = at;
    z->n_slots = 16;
    while (z->n_slots < 2 * n) z->n_slots *= 2;
    z->member = mode_scratch_take(r->scratch, n, sizeof *z->member);
    z->slot = mode_scratch_take(r->scratch, z->n_slots, sizeof *z->slot);
    if (!z->member || !z->slot) return MODE_FAIL(r->err, MODE_E_MEMORY, "the zip's directory is too large");
    const uint8_t *p = r->data + at, *end = p + bytes;
    for (uint64_t i = 0; i < n; i++) {
        if (end - p < HEAD || memcmp(p, "PK\1\2", 4) != 0)
            return MODE_FAIL(r->err, MODE_E_FORMAT, "entry %llu of the zip's directory is damaged",
                             (unsigned long long)i);
        size_t n_name = le(p + 28, 2), n_extra = le(p + 30, 2), n_comment = le(p + 32, 2);
        uint64_t packed = le(p + 20, 4), size = le(p + 24, 4), local = le(p + 42, 4);
        if ((size_t)(end - p) - HEAD < n_name + n_extra + n_comment || n_name > MAX_ZIP_NAME ||
            !zip_wide(p + HEAD + n_name, n_extra, &size, &packed, &local))
            return MODE_FAIL(r->err, MODE_E_FORMAT, "entry %llu of the zip's directory is damaged",
                             (unsigned long long)i);
        struct member *m = &z->member[z->n];
        *m = (struct member){(const char *)p + HEAD, n_name, local, size, le(p + 10, 2) == 0 && packed == size};
        m->stored = m->stored && !(le(p + 8, 2) & 1); /* encrypted */
        if (zip_find(z, m->name, n_name))
            return MODE_FAIL(r->err, MODE_E_FORMAT, "two entries of the zip have the same name (entry %llu)",
                             (unsigned long long)i);
        size_t slot = hash(m->name, n_name) & (z->n_slots - 1);
        while (z->slot[slot]) slot = (slot + 1) & (z->n_slots - 1);
        z->slot[slot] = (uint32_t)++z->n;
        p += HEAD + n_name + n_extra + n_comment;
    }
    return MODE_OK;
}

/* The bytes of a member. */
static enum mode_status zip_extent(const struct reader *r, const struct zip *z, const struct member *m,
                                   struct extent *e)
{
    enum { HEAD = 30 };
    int n_name = (int)m->n_name;
    if (!m->stored)
        return MODE_FAIL(
            r->err, MODE_E_FORMAT,
            "%.*s is compressed or encrypted in the zip; torch.save stores it as it is. HINT: was the file "
            "packed again?",
            n_name, m->name);
    bool here = m->local <= z->directory && z->directory - m->local >= HEAD;
    const uint8_t *p = here ? r->data + m->local : NULL;
    if (!here || memcmp(p, "PK\3\4", 4) != 0 || le(p + 26, 2) != m->n_name ||
        z->directory - m->local - HEAD < m->n_name + le(p + 28, 2) || memcmp(p + HEAD, m->name, m->n_name) != 0)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "%.*s: the zip's entry is not where its directory says", n_name,
                         m->name);
    e->begin = m->local + HEAD + m->n_name + le(p + 28, 2);
    if (m->size > z->directory - e->begin)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "%.*s: its %llu bytes do not lie in the file", n_name, m->name,
                         (unsigned long long)m->size);
    e->end = e->begin + m->size;
    return MODE_OK;
}

/* ---- the plan -------------------------------------------------------------------------------------------- */

static void note(struct reader *r, const char *text, size_t n)
{
    size_t at = strlen(r->plan->note);
    snprintf(r->plan->note + at, MODE_TORCH_NOTE - at, "%.*s", (int)n, text);
    for (char *p = r->plan->note; *p; p++)
        if ((unsigned char)*p < ' ' || (unsigned char)*p > '~') *p = '?';
}

static int key_length(const struct mode_pickle_value *storage)
{
    size_t n = storage->as.storage.key->as.text.size;
    return (int)(n < 40 ? n : 40);
}

static enum mode_status add_tensor(struct reader *r, const char *name, size_t n_name, const struct mode_pickle_value *v)
{
    struct mode_torch_plan *plan = r->plan;
    const struct mode_pickle_value *storage = v->as.tensor.storage;
    struct extent where = {0};
    if (plan->n_entries == MODE_TORCH_MAX_TENSORS || n_name + 1 > MODE_TORCH_NAMES - plan->n_names)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "more than %d tensors", MODE_TORCH_MAX_TENSORS);
    if (n_name == 0 || n_name > MAX_NAME || memchr(name, 0, n_name))
        return MODE_FAIL(r->err, MODE_E_FORMAT, "tensor %u has a name that is empty, too long or holds a NUL",
                         plan->n_entries);
    enum mode_status st = r->place(r, &where, storage);
    if (st) return st;
    if ((where.end - where.begin) / mode_dtype_size(storage->as.storage.dtype) < (uint64_t)storage->as.storage.count)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "storage %.*s has %llu bytes, too few for its %lld elements",
                         key_length(storage), storage->as.storage.key->as.text.data,
                         (unsigned long long)(where.end - where.begin), (long long)storage->as.storage.count);
    struct mode_torch_entry *e = &plan->entry[plan->n_entries++];
    *e = (struct mode_torch_entry){.name = plan->n_names,
                                   .dtype = storage->as.storage.dtype,
                                   .n_dims = v->as.tensor.n_dims,
                                   .begin = where.begin,
                                   .end = where.end,
                                   .offset = v->as.tensor.offset};
    memcpy(e->dim, v->as.tensor.dim, sizeof e->dim);
    memcpy(e->stride, v->as.tensor.stride, sizeof e->stride);
    memcpy(plan->names + plan->n_names, name, n_name);
    plan->names[plan->n_names + n_name] = 0;
    plan->n_names += (uint32_t)n_name + 1;
    return MODE_OK;
}

/* Tensors among the values; those of objects under "name.attribute". Others are counted. */
static enum mode_status add_all(struct reader *r, const struct mode_pickle_value *dict, char *name, size_t n_name,
                                int depth)
{
    enum mode_status st = MODE_OK;
    if (depth > MAX_DEPTH) return MODE_FAIL(r->err, MODE_E_FORMAT, "objects are nested deeper than %d", MAX_DEPTH);
    for (size_t i = 0; !st && i + 1 < dict->as.list.n; i += 2) {
        const struct mode_pickle_value *key = dict->as.list.item[i], *v = dict->as.list.item[i + 1];
        bool object = v->kind == MODE_PICKLE_OBJECT;
        if (++r->n_visits > 4 * MODE_TORCH_MAX_TENSORS)
            return MODE_FAIL(r->err, MODE_E_FORMAT, "more than %d values", 4 * MODE_TORCH_MAX_TENSORS);
        if ((v->kind != MODE_PICKLE_TENSOR && !object) || key->kind != MODE_PICKLE_TEXT) {
            r->n_aside += v->kind == MODE_PICKLE_TENSOR;
            continue;
        }
        size_t n = n_name + (n_name > 0) + key->as.text.size;
        if (key->as.text.size > MAX_NAME || n > MAX_NAME)
            return MODE_FAIL(r->err, MODE_E_FORMAT, "a name of more than %d bytes", MAX_NAME);
        if (n_name) name[n_name] = '.';
        memcpy(name + n - key->as.text.size, key->as.text.data, key->as.text.size);
        st = object ? add_all(r, v, name, n, depth + 1) : add_tensor(r, name, n, v);
    }
    return st;
}

static enum mode_status choose(struct reader *r, const struct mode_pickle_value *root)
{
    char name[MAX_NAME + 1];
    const struct mode_pickle_value *dict = root, *v;
    if (root->kind == MODE_PICKLE_OBJECT) note(r, "a TorchScript archive; its tensors are read, its code is not", 80);
    for (int depth = 0; depth < 2 && (v = mode_pickle_get(dict, "state_dict")); depth++) {
        if (v->kind != MODE_PICKLE_DICT) break;
        if (depth == 0) {
            const char *comma = "; left aside: ";
            note(r, "the state_dict of a training checkpoint", 80);
            for (size_t i = 0; i + 1 < dict->as.list.n; i += 2) {
                const struct mode_pickle_value *key = dict->as.list.item[i];
                if (key->kind != MODE_PICKLE_TEXT || mode_pickle_is_text(key, "state_dict")) continue;
                if (strlen(r->plan->note) > MODE_TORCH_NOTE / 2) break;
                note(r, comma, 80);
                note(r, key->as.text.data, key->as.text.size < 20 ? key->as.text.size : 20);
                comma = ", ";
            }
        }
        dict = v;
    }
    if (dict->kind != MODE_PICKLE_DICT && dict->kind != MODE_PICKLE_OBJECT)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "the file holds no dict of tensors");
    enum mode_status st = add_all(r, dict, name, 0, 0);
    if (!st && r->plan->n_entries == 0)
        st = MODE_FAIL(r->err, MODE_E_FORMAT, "the file holds a dict without tensors (nor a \"state_dict\")");
    if (!st && r->n_aside)
        st = MODE_FAIL(r->err, MODE_E_FORMAT, "%zu tensors are stored under keys that are not strings", r->n_aside);
    return st;
}

/* ---- PyTorch 1.6 and later: a zip ------------------------------------------------------------------------ */

struct archive {
    struct zip zip;
    char prefix[MAX_ZIP_NAME + 64]; /* "archive/" */
    size_t n_prefix;
};

static enum mode_status place_in_zip(struct reader *r, struct extent *e, const struct mode_pickle_value *storage)
{
    struct archive *a = r->places;
    const struct mode_pickle_value *key = storage->as.storage.key;
    int n = snprintf(a->prefix + a->n_prefix, sizeof a->prefix - a->n_prefix, "data/%.*s", key_length(storage),
                     key->as.text.data);
    const struct member *m = zip_find(&a->zip, a->prefix, a->n_prefix + (size_t)n);
    if (!m) return MODE_FAIL(r->err, MODE_E_FORMAT, "the zip holds no %s, which data.pkl refers to", a->prefix);
    return zip_extent(r, &a->zip, m, e);
}

/* "<anything>/data.pkl", the only one at that depth. */
static enum mode_status find_pickle(struct reader *r, struct archive *a, struct extent *e)
{
    static const char tail[] = "/data.pkl";
    const size_t n_tail = sizeof tail - 1;
    const struct member *found = NULL;
    for (size_t i = 0; i < a->zip.n; i++) {
        const struct member *m = &a->zip.member[i];
        if (m->n_name <= n_tail || memcmp(m->name + m->n_name - n_tail, tail, n_tail) != 0) continue;
        if (memchr(m->name, '/', m->n_name - n_tail)) continue;
        if (found) return MODE_FAIL(r->err, MODE_E_FORMAT, "the zip holds two data.pkl");
        found = m;
    }
    if (!found) return MODE_FAIL(r->err, MODE_E_FORMAT, "the zip holds no data.pkl: it was not written by torch.save");
    a->n_prefix = found->n_name - (n_tail - 1);
    memcpy(a->prefix, found->name, a->n_prefix);
    return zip_extent(r, &a->zip, found, e);
}

static enum mode_status check_byteorder(struct reader *r, struct archive *a)
{
    struct extent e;
    strcpy(a->prefix + a->n_prefix, "byteorder");
    const struct member *m = zip_find(&a->zip, a->prefix, strlen(a->prefix));
    if (!m) return MODE_OK; /* PyTorch before 2.1 */
    enum mode_status st = zip_extent(r, &a->zip, m, &e);
    if (!st && (e.end - e.begin != 6 || memcmp(r->data + e.begin, "little", 6) != 0))
        st = MODE_FAIL(r->err, MODE_E_FORMAT, "byteorder is not \"little\": saved on a big-endian machine");
    return st;
}

static enum mode_status plan_zip(struct reader *r)
{
    struct archive a = {0};
    struct extent e;
    struct mode_pickle_value *root;
    size_t at = 0;
    enum mode_status st = zip_read(r, &a.zip);
    if (!st) st = find_pickle(r, &a, &e);
    if (!st) st = check_byteorder(r, &a);
    if (!st && e.end - e.begin > MAX_PICKLE)
        st = MODE_FAIL(r->err, MODE_E_FORMAT, "data.pkl has %llu bytes, at most %d are read",
                       (unsigned long long)(e.end - e.begin), MAX_PICKLE);
    if (!st)
        st = mode_pickle_read(&root, NULL, &at, r->scratch, r->data + e.begin, e.end - e.begin, "data.pkl", r->err);
    r->place = place_in_zip;
    r->places = &a;
    return st ? st : choose(r, root);
}

/* ---- before: pickles one after another, then the storages ------------------------------------------------ */

struct row_slot {
    const struct mode_pickle_value *storage;
    struct extent where;
};

struct row {
    struct row_slot *slot; /* hash table by key */
    size_t n_slots;        /* a power of two */
};

static struct row_slot *row_find(const struct row *row, const struct mode_pickle_value *key)
{
    size_t i = hash(key->as.text.data, key->as.text.size) & (row->n_slots - 1);
    for (; row->slot[i].storage; i = (i + 1) & (row->n_slots - 1)) {
        const struct mode_pickle_value *k = row->slot[i].storage->as.storage.key;
        if (k->as.text.size == key->as.text.size && memcmp(k->as.text.data, key->as.text.data, k->as.text.size) == 0)
            break;
    }
    return &row->slot[i];
}

static enum mode_status place_in_row(struct reader *r, struct extent *e, const struct mode_pickle_value *storage)
{
    const struct row_slot *s = row_find(r->places, storage->as.storage.key);
    if (!s->storage || s->where.end == 0)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "storage %.*s is not in the list of storages", key_length(storage),
                         storage->as.storage.key->as.text.data);
    if (s->storage->as.storage.dtype != storage->as.storage.dtype)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "storage %.*s has two dtypes", key_length(storage),
                         storage->as.storage.key->as.text.data);
    *e = s->where;
    return MODE_OK;
}

static enum mode_status row_make(struct reader *r, struct row *row, const struct mode_pickle_value *storages)
{
    size_t n = 0;
    for (const struct mode_pickle_value *s = storages; s; s = s->as.storage.next) n++;
    row->n_slots = 16;
    while (row->n_slots < 2 * n) row->n_slots *= 2;
    row->slot = mode_scratch_take(r->scratch, row->n_slots, sizeof *row->slot);
    if (!row->slot) return MODE_FAIL(r->err, MODE_E_MEMORY, "%zu storages are too many", n);
    for (const struct mode_pickle_value *s = storages; s; s = s->as.storage.next)
        row_find(row, s->as.storage.key)->storage = s;
    return MODE_OK;
}

/* Storages in the order of the key list, each with its number of elements in eight bytes, then the elements. */
static enum mode_status row_walk(struct reader *r, struct row *row, const struct mode_pickle_value *keys, size_t at)
{
    if (keys->kind != MODE_PICKLE_LIST) return MODE_FAIL(r->err, MODE_E_FORMAT, "the list of storages is not a list");
    for (size_t i = 0; i < keys->as.list.n; i++) {
        const struct mode_pickle_value *key = keys->as.list.item[i];
        struct row_slot *s = key->kind == MODE_PICKLE_TEXT ? row_find(row, key) : NULL;
        if (!s || !s->storage || s->where.end)
            return MODE_FAIL(r->err, MODE_E_FORMAT, "storage %zu of the list belongs to no tensor, or is listed twice",
                             i);
        uint64_t count = r->size - at >= 8 ? le(r->data + at, 8) : UINT64_MAX;
        size_t bytes, each = mode_dtype_size(s->storage->as.storage.dtype);
        if (count != (uint64_t)s->storage->as.storage.count || !mode_mul_size(count, each, &bytes) ||
            bytes > r->size - at - 8)
            return MODE_FAIL(r->err, MODE_E_FORMAT,
                             "storage %zu of %zu, at byte %zu, does not hold the %lld elements that the pickle states. "
                             "HINT: a truncated download?",
                             i, keys->as.list.n, at, (long long)s->storage->as.storage.count);
        s->where = (struct extent){at + 8, at + 8 + bytes};
        at += 8 + bytes;
    }
    return MODE_OK;
}

static enum mode_status plan_row(struct reader *r)
{
    static const char magic[] = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    struct mode_pickle_value *first, *version, *system, *root, *keys, *storages, *little;
    struct row row;
    size_t at = 0, limit = r->size;
    enum mode_status st = mode_pickle_read(&first, NULL, &at, r->scratch, r->data, limit, "the first pickle", r->err);
    if (st) return st;
    if (first->kind != MODE_PICKLE_BYTES || first->as.text.size != 10 || memcmp(first->as.text.data, magic, 10) != 0)
        return MODE_FAIL(r->err, MODE_E_FORMAT, "a pickle, but not one that torch.save wrote");
    if ((st = mode_pickle_read(&version, NULL, &at, r->scratch, r->data, limit, "the second pickle", r->err)) ||
        (st = mode_pickle_read(&system, NULL, &at, r->scratch, r->data, limit, "the third pickle", r->err)))
        return st;
    little = mode_pickle_get(system, "little_endian");
    if (version->kind != MODE_PICKLE_INT || version->as.integer != 1001 || !little ||
        little->kind != MODE_PICKLE_BOOL || !little->as.integer)
        return MODE_FAIL(r->err, MODE_E_FORMAT,
                         "saved by an unknown version of torch.save, or on a big-endian machine");
    if ((st = mode_pickle_read(&root, &storages, &at, r->scratch, r->data, limit, "the pickle of the tensors",
                               r->err)) ||
        (st = mode_pickle_read(&keys, NULL, &at, r->scratch, r->data, limit, "the list of storages", r->err)) ||
        (st = row_make(r, &row, storages)) || (st = row_walk(r, &row, keys, at)))
        return st;
    r->place = place_in_row;
    r->places = &row;
    return choose(r, root);
}

/* ---- both ------------------------------------------------------------------------------------------------- */

bool mode_torch_file_looks(const uint8_t *data, size_t size)
{
    return size >= 4 && (memcmp(data, "PK\3\4", 4) == 0 || (data[0] == 0x80 && data[1] >= 2 && data[1] <= 5));
}

void mode_torch_plan_make(struct mode_torch_plan *plan, struct mode_scratch *scratch, const uint8_t *data, size_t size)
{
    struct mode_error err = {0};
    struct reader r = {.plan = plan, .scratch = scratch, .data = data, .size = size, .err = &err};
    plan->n_entries = plan->n_names = 0;
    plan->note[0] = plan->text[0] = 0;
    if (size >= 4 && memcmp(data, "PK\3\4", 4) == 0)
        plan->status = plan_zip(&r);
    else
        plan->status = plan_row(&r);
    if (plan->status) snprintf(plan->text, sizeof plan->text, "%.599s", err.text);
}

enum mode_status mode_torch_plan_check(const struct mode_torch_plan *plan, size_t size, struct mode_error *err)
{
    if (plan->n_entries > MODE_TORCH_MAX_TENSORS || plan->n_names > MODE_TORCH_NAMES ||
        (plan->n_names && plan->names[plan->n_names - 1] != 0) || !memchr(plan->note, 0, sizeof plan->note))
        return MODE_FAIL(err, MODE_E_FORMAT, "the plan's counts are out of range");
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const struct mode_torch_entry *e = &plan->entry[i];
        bool fits = e->name < plan->n_names && e->dtype >= MODE_DTYPE_F32 && e->dtype <= MODE_DTYPE_BOOL &&
                    e->n_dims >= 0 && e->n_dims <= MODE_MAX_DIMS && e->begin <= e->end && e->end <= size &&
                    e->offset >= 0;
        uint64_t room = fits ? (e->end - e->begin) / mode_dtype_size(e->dtype) : 0, last = (uint64_t)e->offset,
                 elements = 1, span;
        for (int k = 0; fits && k < e->n_dims; k++) {
            fits = e->dim[k] >= 0 && e->stride[k] >= 0 &&
                   !__builtin_mul_overflow(elements, (uint64_t)e->dim[k], &elements) &&
                   (e->dim[k] == 0 ||
                    (!__builtin_mul_overflow((uint64_t)e->dim[k] - 1, (uint64_t)e->stride[k], &span) &&
                     !__builtin_add_overflow(last, span, &last)));
        }
        if (!fits || elements > room || (elements > 0 && last >= room))
            return MODE_FAIL(err, MODE_E_FORMAT, "tensor %u of the plan does not lie in the file", i);
    }
    return MODE_OK;
}
