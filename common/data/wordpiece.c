/* BERT's WordPiece: the text is cleaned, split at white space and punctuation, and each word split greedily into the
 * longest known pieces. */
#include "base/file.h"
#include "base/str.h"
#include "data/token_map.h"
#include "data/tokenizer_impl.h"
#include "data/unicode.h"
#include "data/word_cache.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VOCAB = 1 << 20, MAX_FILE = 64 << 20, MAX_WORD_CHARS = 4096 };

struct mode__wordpiece {
    struct mode_word_cache *cache;
    struct mode_token_map whole; /* pieces that may start a word                */
    struct mode_token_map inner; /* pieces that continue one, without the prefix */
    int32_t unknown;
    int max_word_chars;
    bool clean, cjk, strip_accents, lower;
    bool may_add[256]; /* an added text begins with this byte */
    size_t n_added;    /* texts that map to one id wherever they appear, before any cleaning */
    struct added {
        char *text;
        size_t len;
        int32_t id;
    } * added;
};

/* ---- opening --------------------------------------------------------------------------------------------- */

static enum mode_status add_piece(struct mode__wordpiece *w, const char *path, const char *prefix, const char *piece,
                                  size_t len, int64_t id, struct mode_error *err)
{
    size_t skip = strlen(prefix);
    if (id < 0 || id >= MAX_VOCAB)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: token \"%.*s\" has id %lld, expected 0 to %d", path,
                         (int)(len < 80 ? len : 80), piece, (long long)id, MAX_VOCAB - 1);
    mode_token_map_set(&w->whole, piece, len, (int32_t)id);
    if (len > skip && memcmp(piece, prefix, skip) == 0)
        mode_token_map_set(&w->inner, piece + skip, len - skip, (int32_t)id);
    return MODE_OK;
}

static void add_special(struct mode__wordpiece *w, const char *text, int32_t id)
{
    w->added = mode_xrealloc(w->added, (w->n_added + 1) * sizeof *w->added);
    w->may_add[(unsigned char)text[0]] = true;
    w->added[w->n_added++] = (struct added){mode_xstrdup(text), strlen(text), id};
}

static enum mode_status load_json(json_t **root, const char *path, struct mode_error *err)
{
    char *data;
    size_t size;
    json_error_t why;
    enum mode_status st = mode_file_read(path, MAX_FILE, &data, &size, err);
    if (st) return st;
    *root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &why);
    free(data);
    if (!*root || !json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: not a JSON object: %s at line %d", path, why.text, why.line);
    }
    return MODE_OK;
}

/* {"type": T, ...} whose T must be want. */
static enum mode_status need_type(const char *path, json_t *object, const char *what, const char *want,
                                  struct mode_error *err)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    if (!type || strcmp(type, want) != 0)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s is \"%s\", only \"%s\" is supported", path, what,
                         type ? type : "missing", want);
    return MODE_OK;
}

/* A missing or null member keeps the default. */
static bool flag(json_t *object, const char *key, bool otherwise)
{
    json_t *v = json_object_get(object, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* The name of a special token: "cls_token": "[CLS]" or {"content": "[CLS]", ...}. */
static const char *token_name(json_t *config, const char *key, const char *otherwise)
{
    json_t *v = json_object_get(config, key);
    const char *name = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    return name && *name ? name : otherwise;
}

/* What tokenizer_config.json, which may be NULL, says about cleaning replaces what was set before. */
static void read_config(struct mode__wordpiece *w, json_t *config)
{
    w->cjk = flag(config, "tokenize_chinese_chars", w->cjk);
    if (json_is_boolean(json_object_get(config, "do_lower_case"))) {
        w->lower = flag(config, "do_lower_case", w->lower);
        w->strip_accents = w->lower;
    }
    w->strip_accents = flag(config, "strip_accents", w->strip_accents);
}

static enum mode_status read_added(struct mode__wordpiece *w, const char *path, json_t *list, struct mode_error *err)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const char *text = json_string_value(json_object_get(entry, "content"));
        json_t *id = json_object_get(entry, "id");
        if (!text || !*text || !json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= MAX_VOCAB)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: added token %zu lacks a content or an id", path, i);
        /* lstrip and rstrip make adjacent white space part of the token: white space gives no ids here anyway */
        if (flag(entry, "single_word", false) || flag(entry, "normalized", false))
            return MODE_FAIL(err, MODE_E_FORMAT,
                             "%s: added token \"%.80s\" uses single_word or normalized, which are not supported", path,
                             text);
        add_special(w, text, (int32_t)json_integer_value(id));
    }
    return MODE_OK;
}

/* First and last token of a text: {"type": "TemplateProcessing"|"BertProcessing", ...}. */
static enum mode_status read_post(struct mode_tokenizer *t, const char *path, json_t *post, struct mode_error *err)
{
    const char *type = json_string_value(json_object_get(post, "type"));
    json_int_t start = -1, end = -1;
    if (type && strcmp(type, "BertProcessing") == 0) {
        if (json_unpack(post, "{s:[s,I], s:[s,I]}", "cls", &type, &start, "sep", &type, &end) != 0) start = -1;
    } else if (type && strcmp(type, "TemplateProcessing") == 0) {
        const char *first, *text, *last;
        json_t *single = json_object_get(post, "single"), *special = json_object_get(post, "special_tokens");
        if (json_array_size(single) == 3 &&
            json_unpack(single, "[{s:{s:s}}, {s:{s:s}}, {s:{s:s}}]", "SpecialToken", "id", &first, "Sequence", "id",
                        &text, "SpecialToken", "id", &last) == 0) {
            if (json_unpack(json_object_get(special, first), "{s:[I!]}", "ids", &start) != 0) start = -1;
            if (json_unpack(json_object_get(special, last), "{s:[I!]}", "ids", &end) != 0) end = -1;
        }
    } else
        return MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s: post_processor is \"%s\", only \"TemplateProcessing\" and \"BertProcessing\" are supported", path,
            type ? type : "missing");
    if (start < 0 || start >= MAX_VOCAB || end < 0 || end >= MAX_VOCAB)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: post_processor does not put one token before and one after a text",
                         path);
    t->start = (int32_t)start;
    t->end = (int32_t)end;
    return MODE_OK;
}

static enum mode_status open_tokenizer_json(struct mode_tokenizer *t, const char *path, json_t *config,
                                            struct mode_error *err)
{
    struct mode__wordpiece *w = t->wordpiece;
    json_t *root, *id, *vocab;
    const char *unknown, *prefix, *piece;
    json_int_t max_chars;
    enum mode_status st = load_json(&root, path, err);
    if (st) return st;
    json_t *normaliser = json_object_get(root, "normalizer"), *model = json_object_get(root, "model");
    if ((st = need_type(path, normaliser, "normalizer", "BertNormalizer", err))) goto out;
    if ((st = need_type(path, json_object_get(root, "pre_tokenizer"), "pre_tokenizer", "BertPreTokenizer", err)))
        goto out;
    /* older files lack the model's type */
    if (json_object_get(model, "type") && (st = need_type(path, model, "model", "WordPiece", err))) goto out;
    w->clean = flag(normaliser, "clean_text", true);
    w->cjk = flag(normaliser, "handle_chinese_chars", true);
    w->lower = flag(normaliser, "lowercase", true);
    w->strip_accents = flag(normaliser, "strip_accents", w->lower);
    read_config(w, config);

    if (json_unpack(model, "{s:s, s:s, s:I, s:o}", "unk_token", &unknown, "continuing_subword_prefix", &prefix,
                    "max_input_chars_per_word", &max_chars, "vocab", &vocab) != 0 ||
        !json_is_object(vocab) || max_chars < 1 || max_chars > MAX_WORD_CHARS) {
        st = MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s: model lacks unk_token, continuing_subword_prefix, max_input_chars_per_word (1 to %d) or vocab", path,
            MAX_WORD_CHARS);
        goto out;
    }
    w->max_word_chars = (int)max_chars;
    json_object_foreach(vocab, piece, id)
    {
        st = add_piece(w, path, prefix, piece, strlen(piece), json_is_integer(id) ? json_integer_value(id) : -1, err);
        if (st) goto out;
        if (json_integer_value(id) >= t->vocab_size) t->vocab_size = (int32_t)json_integer_value(id) + 1;
    }
    w->unknown = mode_token_map_find(&w->whole, unknown, strlen(unknown));
    if (w->unknown < 0) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the unknown token \"%.80s\" is not in the vocabulary", path, unknown);
        goto out;
    }
    if ((st = read_added(w, path, json_object_get(root, "added_tokens"), err))) goto out;
    st = read_post(t, path, json_object_get(root, "post_processor"), err);
out:
    json_decref(root);
    return st;
}

static enum mode_status open_vocab_txt(struct mode_tokenizer *t, const char *path, json_t *config,
                                       struct mode_error *err)
{
    static const struct {
        const char *key, *name;
    } specials[] = {{"unk_token", "[UNK]"},
                    {"cls_token", "[CLS]"},
                    {"sep_token", "[SEP]"},
                    {"pad_token", "[PAD]"},
                    {"mask_token", "[MASK]"}};
    struct mode__wordpiece *w = t->wordpiece;
    char *data;
    size_t size;
    w->clean = w->cjk = w->lower = w->strip_accents = true;
    w->max_word_chars = 100;
    read_config(w, config);
    enum mode_status st = mode_file_read(path, MAX_FILE, &data, &size, err);
    if (st) return st;
    for (size_t at = 0; at < size && !st; t->vocab_size++) {
        const char *line = data + at, *stop = memchr(line, '\n', size - at);
        size_t len = stop ? (size_t)(stop - line) : size - at;
        at += len + 1;
        if (len > 0 && line[len - 1] == '\r') len--;
        st = add_piece(w, path, "##", line, len, t->vocab_size, err);
    }
    free(data);
    if (st) return st;
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
        const char *name = token_name(config, specials[i].key, specials[i].name);
        int32_t id = mode_token_map_find(&w->whole, name, strlen(name));
        if (id >= 0)
            add_special(w, name, id);
        else if (i < 3)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: the %s \"%.80s\" is missing among its %d tokens", path,
                             specials[i].key, name, t->vocab_size);
        if (i == 0) w->unknown = id;
        if (i == 1) t->start = id;
        if (i == 2) t->end = id;
    }
    return MODE_OK;
}

enum mode_status mode__wordpiece_open(struct mode_tokenizer *t, const char *dir, struct mode_error *err)
{
    char *json = mode_path_join(dir, "tokenizer.json"), *txt = mode_path_join(dir, "vocab.txt");
    char *config_path = mode_path_join(dir, "tokenizer_config.json");
    json_t *config = NULL;
    enum mode_status st = mode_input_folder(dir, err);
    t->wordpiece = mode_xcalloc(1, sizeof *t->wordpiece);
    t->wordpiece->cache = mode_word_cache_open();
    if (!st && mode_file_exists(config_path)) st = load_json(&config, config_path, err);
    if (st) goto out;
    if (mode_file_exists(json))
        st = open_tokenizer_json(t, json, config, err);
    else if (mode_file_exists(txt))
        st = open_vocab_txt(t, txt, config, err);
    else
        st = MODE_FAIL(err, MODE_E_NOINPUT, "%s: holds neither tokenizer.json nor vocab.txt", dir);
    if (st) goto out;
    const char *pad = token_name(config, "pad_token", "[PAD]");
    int32_t id = mode_token_map_find(&t->wordpiece->whole, pad, strlen(pad));
    t->pad = id < 0 ? 0 : id;
out:
    json_decref(config);
    free(config_path);
    free(json);
    free(txt);
    return st;
}

void mode__wordpiece_close(struct mode__wordpiece *w)
{
    if (!w) return;
    mode_word_cache_close(w->cache);
    mode_token_map_clear(&w->whole);
    mode_token_map_clear(&w->inner);
    for (size_t i = 0; i < w->n_added; i++) free(w->added[i].text);
    free(w->added);
    free(w);
}

/* ---- encoding -------------------------------------------------------------------------------------------- */

/* The ranges of Hugging Face's implementation, the gap from 2B820 to 2B91F included: models were trained on its ids. */
static bool is_cjk(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* Cleans, separates CJK characters, strips accents, lower-cases. r is replaced. */
static void normalise(const struct mode__wordpiece *w, struct mode_runes *r)
{
    struct mode_runes out = {0};
    for (size_t i = 0; i < r->len; i++) {
        uint32_t c = r->data[i];
        if (w->clean) {
            if (c == '\t' || c == '\n' || c == '\r')
                c = ' ';
            else if (c == 0 || c == 0xfffd || mode_rune_is_other(c))
                continue;
            else if (mode_rune_is_space(c))
                c = ' ';
        }
        bool apart = w->cjk && is_cjk(c);
        if (apart) mode_runes_add(&out, ' ');
        mode_runes_add(&out, c);
        if (apart) mode_runes_add(&out, ' ');
    }
    mode_runes_clear(r);
    *r = out;
    if (w->strip_accents) {
        size_t n = 0;
        mode_runes_nfd(r, MODE_AS_HF);
        for (size_t i = 0; i < r->len; i++)
            if (!mode_rune_is_mark(r->data[i])) r->data[n++] = r->data[i];
        r->len = n;
    }
    if (w->lower) mode_runes_lower(r, MODE_AS_HF);
}

/* One word as UTF-8; ends[k] = bytes of its first k+1 characters. Either all pieces are known or the word is one
 * unknown token. */
static void encode_word(const struct mode__wordpiece *w, const char *word, const size_t *ends, size_t n_chars,
                        struct mode__ids *ids)
{
    int32_t pieces[MAX_WORD_CHARS];
    size_t n = 0;
    if (n_chars > (size_t)w->max_word_chars) {
        mode__ids_add(ids, w->unknown);
        return;
    }
    for (size_t from = 0; from < n_chars;) {
        size_t begin = from ? ends[from - 1] : 0, to = n_chars;
        int32_t id = -1;
        for (; to > from; to--) {
            id = mode_token_map_find(from ? &w->inner : &w->whole, word + begin, ends[to - 1] - begin);
            if (id >= 0) break;
        }
        if (id < 0) {
            mode__ids_add(ids, w->unknown);
            return;
        }
        pieces[n++] = id;
        from = to;
    }
    for (size_t i = 0; i < n; i++) mode__ids_add(ids, pieces[i]);
}

/* A short word, through the word cache. text: MODE_WORD_MAX_BYTES long, zero beyond the word. */
static void add_short_word(const struct mode__wordpiece *w, const char *text, const size_t *ends, size_t n_chars,
                           struct mode__ids *ids)
{
    size_t len = ends[n_chars - 1];
    uint64_t hash = mode_word_hash(text, len);
    const struct mode_word *known = mode_word_cache_find(w->cache, hash, text, len);
    int32_t all[MODE_WORD_MAX_BYTES];
    struct mode__ids own = {.data = all, .max = MODE_WORD_MAX_BYTES};
    if (known) {
        for (int i = 0; i < known->n_ids; i++) mode__ids_add(ids, known->ids[i]);
        return;
    }
    encode_word(w, text, ends, n_chars, &own);
    mode_word_cache_keep(w->cache, hash, text, len, all, (size_t)own.n);
    for (int i = 0; i < own.n; i++) mode__ids_add(ids, all[i]);
}

/* ASCII: no marks, no Chinese, every byte a character; controls are skipped, where w cleans, as if they were not there.
 */
static void encode_ascii(const struct mode__wordpiece *w, const char *text, size_t n_bytes, struct mode__ids *ids)
{
    size_t ends[MAX_WORD_CHARS];
    char word[MAX_WORD_CHARS];
    for (size_t i = 0; i < MODE_WORD_MAX_BYTES; i++) ends[i] = i + 1;
    for (size_t i = 0; i < n_bytes && !mode__ids_full(ids);) {
        size_t n = 0;
        memset(word, 0, MODE_WORD_MAX_BYTES);
        for (; i < n_bytes; i++) {
            unsigned char c = (unsigned char)text[i];
            if (w->clean && (c < 0x20 || c == 0x7f) && c != '\t' && c != '\n' && c != '\r') continue;
            bool blank = c == ' ' || (c >= 9 && c <= 13), alone = !blank && mode_rune_is_punct(c);
            if ((blank || alone) && n > 0) break;
            if (blank) continue;
            if (w->lower && c >= 'A' && c <= 'Z') c |= 0x20;
            if (n < MAX_WORD_CHARS) word[n] = (char)c;
            n++;
            if (alone) {
                i++;
                break;
            }
        }
        if (n == 0) break;
        if (n <= MODE_WORD_MAX_BYTES) {
            add_short_word(w, word, ends, n, ids);
            continue;
        }
        for (size_t k = MODE_WORD_MAX_BYTES; k < n && k < MAX_WORD_CHARS; k++) ends[k] = k + 1;
        encode_word(w, word, ends, n, ids);
    }
}

/* A stretch of text without added tokens. */
static void encode_stretch(const struct mode__wordpiece *w, const char *text, size_t n_bytes, struct mode__ids *ids)
{
    struct mode_runes r = {0};
    struct mode_str word = {0};
    size_t ends[MAX_WORD_CHARS];
    unsigned char high = 0;
    for (size_t i = 0; i < n_bytes; i++) high |= (unsigned char)text[i];
    if (high < 0x80) {
        encode_ascii(w, text, n_bytes, ids);
        return;
    }
    mode_runes_from_utf8(&r, text, n_bytes);
    normalise(w, &r);
    for (size_t i = 0; i < r.len && !mode__ids_full(ids);) {
        if (mode_rune_is_space(r.data[i])) {
            i++;
            continue;
        }
        size_t n = 0;
        mode_str_reset(&word);
        bool alone = mode_rune_is_punct(r.data[i]);
        do {
            char u[4];
            mode_str_add(&word, u, (size_t)mode_utf8_put(r.data[i++], u));
            if (n < MAX_WORD_CHARS) ends[n] = word.len;
            n++;
        } while (!alone && i < r.len && !mode_rune_is_space(r.data[i]) && !mode_rune_is_punct(r.data[i]));
        if (word.len <= MODE_WORD_MAX_BYTES) {
            char text_of[MODE_WORD_MAX_BYTES] = {0};
            memcpy(text_of, word.data, word.len);
            add_short_word(w, text_of, ends, n, ids);
        } else
            encode_word(w, word.data, ends, n, ids);
    }
    mode_str_clear(&word);
    mode_runes_clear(&r);
}

/* The longest added token that starts at text, NULL if none does. */
static const struct added *added_at(const struct mode__wordpiece *w, const char *text, size_t n_bytes)
{
    const struct added *best = NULL;
    for (size_t i = 0; i < w->n_added; i++) {
        const struct added *a = &w->added[i];
        if (a->len <= n_bytes && memcmp(text, a->text, a->len) == 0 && (!best || a->len > best->len)) best = a;
    }
    return best;
}

void mode__wordpiece_encode(const struct mode__wordpiece *w, const char *text, size_t n_bytes, struct mode__ids *ids)
{
    size_t begin = 0;
    for (size_t i = 0; i < n_bytes;) {
        const struct added *a = w->may_add[(unsigned char)text[i]] ? added_at(w, text + i, n_bytes - i) : NULL;
        if (!a) {
            i++;
            continue;
        }
        encode_stretch(w, text + begin, i - begin, ids);
        mode__ids_add(ids, a->id);
        i += a->len;
        begin = i;
    }
    encode_stretch(w, text + begin, n_bytes - begin, ids);
}
