/* CLIP's tokenizer: a text cut into words, and each into ids.
 *
 * DESIGN: most captions are plain ASCII that cleaning does not change; they are processed byte by byte, and words are
 * lower-cased into a small buffer and looked up in the word cache. All others take the slow path over code points. */
#include "data/bpe_impl.h"
#include "data/text_clean.h"

#include <stdlib.h>

enum { LONG_S = 0x17f, IOTA_BELOW = 0x345 };

struct run {
    const struct mode__bpe *b;
    struct mode__ids *ids;
    struct mode__bpe_scratch scratch;
};

/* ---- one word --------------------------------------------------------------------------------------------- */

/* text: MODE_WORD_MAX_BYTES long, zero beyond the word. */
static void add_short_word(struct run *run, const char *text, size_t len)
{
    const struct mode__bpe *b = run->b;
    struct mode__ids *ids = run->ids;
    uint64_t hash = mode_word_hash(text, len);
    const struct mode_word *w = mode_word_cache_find(b->cache, hash, text, len);
    if (w) {
        for (int i = 0; i < w->n_ids; i++) mode__ids_add(ids, w->ids[i]);
        return;
    }
    int32_t all[MODE_WORD_MAX_BYTES]; /* a word has at most as many ids as bytes */
    struct mode__ids own = {.data = all, .max = MODE_WORD_MAX_BYTES};
    mode__bpe_word(b, &run->scratch, text, len, &own);
    mode_word_cache_keep(b->cache, hash, text, len, all, (size_t)own.n);
    for (int i = 0; i < own.n; i++) mode__ids_add(ids, all[i]);
}

/* n code points as one word. */
static void add_runes(struct run *run, const uint32_t *p, size_t n)
{
    char text[MODE_WORD_MAX_BYTES] = {0};
    if (4 * n <= sizeof text) {
        size_t len = 0;
        for (size_t k = 0; k < n; k++) len += (size_t)mode_utf8_put(p[k], text + len);
        add_short_word(run, text, len);
        return;
    }
    struct mode_str *bytes = &run->scratch.bytes;
    mode_str_reset(bytes);
    for (size_t k = 0; k < n; k++) {
        char u[4];
        mode_str_add(bytes, u, (size_t)mode_utf8_put(p[k], u));
    }
    mode__bpe_word(run->b, &run->scratch, bytes->data, bytes->len, run->ids);
}

/* ---- plain ASCII ------------------------------------------------------------------------------------------ */

static bool is_letter(unsigned char c)
{
    return (unsigned)((c | 0x20) - 'a') < 26;
}

static bool is_digit(unsigned char c)
{
    return (unsigned)(c - '0') < 10;
}

static bool is_blank(unsigned char c)
{
    return c == ' ' || (unsigned)(c - 9) < 5;
}

static unsigned char lower(unsigned char c)
{
    return (unsigned)(c - 'A') < 26 ? c | 0x20 : c;
}

/* ASCII text in which cleaning only lower-cases and collapses white space. */
static bool is_plain(const char *text, size_t n, bool openai)
{
    unsigned odd = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        odd |= (unsigned)(c >= 0x7f) | (unsigned)(c == '&') | (unsigned)(c < 0x20 && c != '\n' && c != '\t');
    }
    if (odd && !openai) /* Hugging Face removes no ASCII */
        for (size_t i = odd = 0; i < n; i++) odd |= (unsigned char)text[i] & 0x80u;
    return !odd;
}

static size_t match_bytes(const char *text, size_t n, const char *what)
{
    size_t i = 0;
    for (; what[i]; i++)
        if (i >= n || lower((unsigned char)text[i]) != (unsigned char)what[i]) return 0;
    return i;
}

static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
enum { N_CONTRACTIONS = sizeof contractions / sizeof contractions[0] };

static void encode_plain(struct run *run, const char *text, size_t n_bytes)
{
    const bool openai = run->b->clean == MODE_CLIP_CLEAN_OPENAI;
    for (size_t i = 0; i < n_bytes && !mode__ids_full(run->ids);) {
        unsigned char c = (unsigned char)text[i];
        size_t n = 0;
        if (is_blank(c)) {
            i++;
            continue;
        }
        if (is_letter(c))
            for (n = 1; i + n < n_bytes && is_letter((unsigned char)text[i + n]);) n++;
        else if (is_digit(c))
            n = 1;
        else {
            if (c == '<' && openai) {
                int32_t id = run->b->start;
                if (!(n = match_bytes(text + i, n_bytes - i, "<start_of_text>"))) {
                    n = match_bytes(text + i, n_bytes - i, "<end_of_text>");
                    id = run->b->end;
                }
                if (n) {
                    mode__ids_add(run->ids, id);
                    i += n;
                    continue;
                }
            }
            for (size_t k = 0; c == '\'' && n == 0 && k < N_CONTRACTIONS; k++)
                n = match_bytes(text + i, n_bytes - i, contractions[k]);
            if (n == 0)
                for (n = 1; i + n < n_bytes; n++) {
                    unsigned char d = (unsigned char)text[i + n];
                    if (is_letter(d) || is_digit(d) || is_blank(d)) break;
                }
        }
        if (n <= MODE_WORD_MAX_BYTES) {
            char word[MODE_WORD_MAX_BYTES] = {0};
            for (size_t k = 0; k < n; k++) word[k] = (char)lower((unsigned char)text[i + k]);
            add_short_word(run, word, n);
        } else {
            struct mode_str *bytes = &run->scratch.bytes;
            mode_str_reset(bytes);
            for (size_t k = 0; k < n; k++) mode_str_add_char(bytes, (char)lower((unsigned char)text[i + k]));
            mode__bpe_word(run->b, &run->scratch, bytes->data, n, run->ids);
        }
        i += n;
    }
}

/* ---- any text --------------------------------------------------------------------------------------------- */

/* Length of a match of `what` at p in code points, 0 = none. open_clip's match is case-insensitive, so the long s
 * matches an s: *exact is true if case folding was not needed. */
static size_t match(const uint32_t *p, size_t n, const char *what, bool long_s, bool *exact)
{
    size_t i = 0;
    *exact = true;
    for (; what[i]; i++) {
        if (i < n && p[i] == (unsigned char)what[i]) continue;
        if (i >= n || !long_s || what[i] != 's' || p[i] != LONG_S) return 0;
        *exact = false;
    }
    return i;
}

/* Length in code points of the word that starts at p, which is not white space. */
static size_t word_length(const uint32_t *p, size_t n_left, bool openai)
{
    const enum mode_unicode_as as = openai ? MODE_AS_PYTHON : MODE_AS_HF;
    uint32_t c = p[0];
    bool exact;
    for (size_t k = 0; c == '\'' && k < N_CONTRACTIONS; k++) {
        size_t n = match(p, n_left, contractions[k], openai, &exact);
        if (n) return n;
    }
    if (mode_rune_is_number(c, as)) return 1;
    const bool letters = mode_rune_is_letter(c, as);
    size_t n = 1;
    for (; n < n_left; n++) {
        c = p[n];
        if (letters ? !mode_rune_is_letter(c, as)
                    : mode_rune_is_space(c) || mode_rune_is_letter(c, as) || mode_rune_is_number(c, as) ||
                          (openai && c == IOTA_BELOW))
            break;
    }
    return n;
}

/* A cleaned text. */
static void encode_runes(struct run *run, const struct mode_runes *r)
{
    const bool openai = run->b->clean == MODE_CLIP_CLEAN_OPENAI;
    for (size_t i = 0; i < r->len && !mode__ids_full(run->ids);) {
        const uint32_t *p = r->data + i;
        const size_t left = r->len - i;
        size_t n = 0;
        /* because of case folding the regex module treats this mark neither as a letter (iota) nor as a non-letter */
        if (mode_rune_is_space(*p) || (openai && *p == IOTA_BELOW)) {
            i++;
            continue;
        }
        if (*p == '<' && openai) {
            bool exact;
            int32_t id = run->b->start;
            if (!(n = match(p, left, "<start_of_text>", true, &exact))) {
                n = match(p, left, "<end_of_text>", true, &exact);
                id = run->b->end;
            }
            if (n && exact)
                mode__ids_add(run->ids, id);
            else if (n)
                add_runes(run, p, n);
        } else if (*p == '<') { /* in another case than the special token's it is three words */
            bool exact;
            if ((n = match(p, left, "<|startoftext|>", false, &exact)) > 0 ||
                (n = match(p, left, "<|endoftext|>", false, &exact)) > 0) {
                add_runes(run, p, 2);
                add_runes(run, p + 2, n - 4);
                add_runes(run, p + n - 2, 2);
            }
        }
        if (n == 0) {
            n = word_length(p, left, openai);
            add_runes(run, p, n);
        }
        i += n;
    }
}

static void encode_stretch(struct run *run, const char *text, size_t n_bytes)
{
    const bool openai = run->b->clean == MODE_CLIP_CLEAN_OPENAI;
    if (is_plain(text, n_bytes, openai) && (openai || !memchr(text, '<', n_bytes))) {
        encode_plain(run, text, n_bytes);
        return;
    }
    struct mode_runes r = {0};
    mode_runes_from_utf8(&r, text, n_bytes);
    if (openai)
        mode_text_clean_openai(&r);
    else
        mode_text_clean_hf(&r);
    encode_runes(run, &r);
    mode_runes_clear(&r);
}

void mode__bpe_encode(const struct mode__bpe *b, const char *text, size_t n_bytes, struct mode__ids *ids)
{
    static const char *const special[] = {"<|startoftext|>", "<|endoftext|>"};
    struct run run = {.b = b, .ids = ids};
    size_t begin = 0, i = 0;
    /* Hugging Face splits off special tokens before it cleans the rest */
    while (b->clean == MODE_CLIP_CLEAN_HF && i < n_bytes && !mode__ids_full(ids)) {
        const char *at = memchr(text + i, '<', n_bytes - i);
        if (!at) break;
        i = (size_t)(at - text);
        int k = 0;
        while (k < 2 && (n_bytes - i < strlen(special[k]) || memcmp(at, special[k], strlen(special[k])) != 0)) k++;
        if (k == 2) {
            i++;
            continue;
        }
        encode_stretch(&run, text + begin, i - begin);
        mode__ids_add(ids, k ? b->end : b->start);
        begin = i += strlen(special[k]);
    }
    encode_stretch(&run, text + begin, n_bytes - begin);
    mode__bpe_scratch_clear(&run.scratch);
}
