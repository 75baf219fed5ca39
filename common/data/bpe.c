/* CLIP's byte-level BPE.
 *
 * DESIGN: a symbol is its id. Ids 0..255 are the bytes in the vocabulary's own order, 256..511 the same at the end of
 * a word, 512.. the merges in rank order, then the start and end tokens. A word is a linked list of symbols; a heap
 * of mergeable neighbours, ordered by rank and then position, gives the merge order of the reference (lowest rank
 * first, each rank from left to right) in n log n. */
#include "base/file.h"
#include "base/str.h"
#include "data/bpe_impl.h"
#include "data/token_map.h"
#include "data/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_FILE = 64 << 20 };
#define NO_PAIR UINT64_MAX

static size_t pair_home(uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15u) >> 47);
}

static int32_t pair_rank(const struct mode__bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)left << 32 | (uint32_t)right;
    for (size_t i = pair_home(key);; i = (i + 1) & (MODE_BPE_N_PAIR_SLOTS - 1)) {
        if (b->pairs[i].key == key) return b->pairs[i].rank;
        if (b->pairs[i].key == NO_PAIR) return -1;
    }
}

static void pair_add(struct mode__bpe *b, int32_t left, int32_t right, int32_t rank)
{
    uint64_t key = (uint64_t)left << 32 | (uint32_t)right;
    size_t i = pair_home(key);
    while (b->pairs[i].key != NO_PAIR) i = (i + 1) & (MODE_BPE_N_PAIR_SLOTS - 1);
    b->pairs[i] = (struct mode__bpe_pair){key, rank};
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static bool is_gzip(const char *data, size_t size)
{
    return size > 2 && (unsigned char)data[0] == 0x1f && (unsigned char)data[1] == 0x8b;
}

static enum mode_status gunzip(struct mode_str *out, const char *path, const char *data, size_t size,
                               struct mode_error *err)
{
    unsigned char chunk[1 << 15];
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)data, .avail_in = (uInt)size};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return MODE_FAIL(err, MODE_E_MEMORY, "%s: zlib cannot be initialised", path);
    int rc = Z_OK;
    while (rc == Z_OK && out->len < MAX_FILE) {
        z.next_out = chunk;
        z.avail_out = sizeof chunk;
        rc = inflate(&z, Z_NO_FLUSH);
        mode_str_add(out, chunk, sizeof chunk - z.avail_out);
    }
    inflateEnd(&z);
    if (rc != Z_STREAM_END)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: unpacking failed after %zu bytes. HINT: a truncated download?", path,
                         out->len);
    return MODE_OK;
}

void mode__bpe_byte_names(struct mode__bpe_byte to[MODE_BPE_N_BYTES])
{
    int at = 0;
    uint32_t stand_in = 256;
    for (int pass = 0; pass < 2; pass++)
        for (int byte = 0; byte < MODE_BPE_N_BYTES; byte++) {
            bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
            if (printable != (pass == 0)) continue;
            int n = mode_utf8_put(printable ? (uint32_t)byte : stand_in++, to[at].name);
            to[at].name[n] = 0;
            to[at++].byte = (uint8_t)byte;
        }
}

static void name_bytes(struct mode__bpe *b, struct mode_token_map *ids)
{
    struct mode__bpe_byte bytes[MODE_BPE_N_BYTES];
    mode__bpe_byte_names(bytes);
    for (int32_t id = 0; id < MODE_BPE_N_BYTES; id++) {
        char last[16];
        size_t n = strlen(bytes[id].name);
        memcpy(last, bytes[id].name, n);
        memcpy(last + n, "</w>", 4);
        mode_token_map_add(ids, last, n, id);
        mode_token_map_add(ids, last, n + 4, id + MODE_BPE_N_BYTES);
        b->of_byte[bytes[id].byte] = id;
    }
}

static enum mode_status read_merges(struct mode__bpe *b, const char *path, const char *text, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct mode_token_map ids = {0};
    struct mode_str joined = {0};
    name_bytes(b, &ids);
    const char *line = strchr(text, '\n'); /* the first line is a header */
    for (int32_t rank = 0; rank < MODE_BPE_N_MERGES; rank++) {
        const char *end = line ? strchr(++line, '\n') : NULL;
        const char *blank = end ? memchr(line, ' ', (size_t)(end - line)) : NULL;
        if (!blank) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %d: expected two symbols and a blank, %d merges are needed",
                           path, rank + 2, MODE_BPE_N_MERGES);
            break;
        }
        const char *right = blank + 1, *stop = end > right && end[-1] == '\r' ? end - 1 : end;
        int32_t l = mode_token_map_find(&ids, line, (size_t)(blank - line));
        int32_t r = mode_token_map_find(&ids, right, (size_t)(stop - right));
        mode_str_reset(&joined);
        mode_str_add(&joined, line, (size_t)(blank - line));
        mode_str_add(&joined, right, (size_t)(stop - right));
        if (l < 0 || r < 0 || !mode_token_map_add(&ids, joined.data, joined.len, MODE_BPE_FIRST_MERGE + rank)) {
            st = MODE_FAIL(err, MODE_E_FORMAT,
                           "%s: line %d: \"%.*s\" is not a merge of two symbols known so far into a new one", path,
                           rank + 2, (int)(stop - line < 80 ? stop - line : 80), line);
            break;
        }
        pair_add(b, l, r, rank);
        line = end;
    }
    mode_str_clear(&joined);
    mode_token_map_clear(&ids);
    return st;
}

enum mode_status mode__bpe_text(struct mode_str *text, const char *path, struct mode_error *err)
{
    char *data = NULL;
    size_t size;
    enum mode_status st = mode_file_read(path, MAX_FILE, &data, &size, err);
    if (st) return st;
    if (is_gzip(data, size))
        st = gunzip(text, path, data, size, err);
    else
        mode_str_add(text, data, size);
    if (!st && memchr(text->data, '\0', text->len))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: has a NUL byte: not a text file", path);
    free(data);
    return st;
}

enum mode_status mode__bpe_open(struct mode_tokenizer *t, const char *path, enum mode_clip_clean clean,
                                struct mode_error *err)
{
    struct mode_str text = {0};
    enum mode_status st = mode__bpe_text(&text, path, err);
    struct mode__bpe *b = t->bpe = mode_xcalloc(1, sizeof *b);
    for (size_t i = 0; i < MODE_BPE_N_PAIR_SLOTS; i++) b->pairs[i].key = NO_PAIR;
    b->clean = clean;
    b->cache = mode_word_cache_open();
    t->start = b->start = MODE_BPE_FIRST_MERGE + MODE_BPE_N_MERGES;
    t->end = b->end = b->start + 1;
    t->pad = clean == MODE_CLIP_CLEAN_HF ? t->end : 0;
    t->vocab_size = b->end + 1;
    if (!st) st = read_merges(b, path, text.data, err);
    mode_str_clear(&text);
    return st;
}

void mode__bpe_close(struct mode__bpe *b)
{
    if (!b) return;
    mode_word_cache_close(b->cache);
    free(b);
}

/* ---- one word -------------------------------------------------------------------------------------------- */

static void scratch_need(struct mode__bpe_scratch *s, size_t n)
{
    if (n <= s->cap) return;
    s->cap = n < 64 ? 64 : 2 * n;
    s->symbol = mode_xrealloc(s->symbol, s->cap * sizeof *s->symbol);
    s->next = mode_xrealloc(s->next, s->cap * sizeof *s->next);
    s->previous = mode_xrealloc(s->previous, s->cap * sizeof *s->previous);
    s->heap = mode_xrealloc(s->heap, 3 * s->cap * sizeof *s->heap);
}

void mode__bpe_scratch_clear(struct mode__bpe_scratch *s)
{
    free(s->symbol);
    free(s->next);
    free(s->previous);
    free(s->heap);
    mode_str_clear(&s->bytes);
}

static bool before(const struct mode__bpe_candidate *a, const struct mode__bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct mode__bpe_scratch *s, struct mode__bpe_candidate c)
{
    size_t i = s->n_heap++;
    for (; i > 0 && before(&c, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = c;
}

static struct mode__bpe_candidate heap_pop(struct mode__bpe_scratch *s)
{
    struct mode__bpe_candidate top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < s->n_heap; i = k) {
        if (k + 1 < s->n_heap && before(&s->heap[k + 1], &s->heap[k])) k++;
        if (!before(&s->heap[k], &last)) break;
        s->heap[i] = s->heap[k];
    }
    s->heap[i] = last;
    return top;
}

static void offer(const struct mode__bpe *b, struct mode__bpe_scratch *s, int32_t at)
{
    int32_t right = at < 0 ? -1 : s->next[at];
    if (right < 0) return;
    int32_t rank = pair_rank(b, s->symbol[at], s->symbol[right]);
    if (rank >= 0) heap_push(s, (struct mode__bpe_candidate){rank, at, s->symbol[at], s->symbol[right]});
}

void mode__bpe_word(const struct mode__bpe *b, struct mode__bpe_scratch *s, const char *word, size_t n,
                    struct mode__ids *ids)
{
    enum { GONE = -1 };
    if (n == 0 || n > INT32_MAX) return;
    scratch_need(s, n);
    s->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        s->symbol[i] = b->of_byte[(unsigned char)word[i]];
        s->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        s->previous[i] = (int32_t)i - 1;
    }
    s->symbol[n - 1] += MODE_BPE_N_BYTES;
    for (size_t i = 0; i + 1 < n; i++) offer(b, s, (int32_t)i);
    while (s->n_heap > 0) {
        struct mode__bpe_candidate c = heap_pop(s);
        int32_t right = s->next[c.at];
        if (right < 0 || s->symbol[c.at] != c.left || s->symbol[right] != c.right) continue;
        s->symbol[c.at] = MODE_BPE_FIRST_MERGE + c.rank;
        s->symbol[right] = GONE;
        s->next[c.at] = s->next[right];
        if (s->next[right] >= 0) s->previous[s->next[right]] = c.at;
        offer(b, s, s->previous[c.at]);
        offer(b, s, c.at);
    }
    for (int32_t i = 0; i >= 0; i = s->next[i]) mode__ids_add(ids, s->symbol[i]);
}
