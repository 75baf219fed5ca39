/* Tokenizers on small vocabularies; the real ones are compared with their references in tests/golden. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/clip_vocab.h"
#include "data/tokenizer.h"
#include "data/unicode.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-tokenizer-XXXXXX";

static char *in_dir(const char *name)
{
    return mode_path_join(dir, name);
}

static void put(const char *name, const char *text)
{
    struct mode_error err = {0};
    char *path = in_dir(name);
    assert_int_equal(mode_file_write_atomic(path, text, strlen(text), &err), MODE_OK);
    free(path);
}

static void drop(const char *name)
{
    char *path = in_dir(name);
    remove(path);
    free(path);
}

/* ---- BERT ------------------------------------------------------------------------------------------------ */

static void check_ids(const struct mode_tokenizer *t, const char *text, size_t n_bytes, int max, const int32_t *want,
                      int n_want)
{
    int32_t ids[64];
    int n = mode_tokenizer_encode(t, text, n_bytes, ids, max);
    if (n != n_want) fail_msg("\"%s\": %d ids, expected %d", text, n, n_want);
    for (int i = 0; i < n; i++)
        if (ids[i] != want[i]) fail_msg("\"%s\": id %d is %d, expected %d", text, i, ids[i], want[i]);
}
#define IDS(t, text, max, ...)                                                                                         \
    check_ids(t, text, strlen(text), max, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4)

/* 0 [PAD] 1 [UNK] 2 [CLS] 3 [SEP] 4 [MASK] 5 a 6 cat 7 ##s 8 ! 9 un 10 ##able 11 ##a 12 cafe 13 chinese "middle" 14 Cat
 */
static const char vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\n##s\n!\nun\n##able\n##a\ncafe\n\xe4\xb8\xad\nCat\n";

static void test_wordpiece(void **state)
{
    (void)state;
    struct mode_tokenizer *t;
    struct mode_error err = {0};
    put("vocab.txt", vocab);
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_OK);
    assert_int_equal(mode_tokenizer_vocab_size(t), 15);
    IDS(t, "", 8, 2, 3);
    IDS(t, "A cats!", 8, 2, 5, 6, 7, 8, 3);
    IDS(t, "unable una unx", 16, 2, 9, 10, 9, 11, 1, 3); /* one unknown for the whole word */
    IDS(t, "CAF\xc3\x89", 8, 2, 12, 3);                  /* lower case, accent stripped     */
    IDS(t,
        "cat\xe4\xb8\xad"
        "cat",
        8, 2, 6, 13, 6, 3); /* CJK is split off                */
    IDS(t,
        "c\x01"
        "a\xef\xbf\xbdt\xc2\xa0"
        "a",
        8, 2, 6, 5, 3);
    IDS(t, "a [MASK][UNK] [mask]", 16, 2, 5, 4, 1, 1, 1, 1, 3); /* specials by exact spelling only */
    IDS(t, "a a a a", 4, 2, 5, 5, 3);                           /* cut, the end token stays        */
    IDS(t, "a a", 4, 2, 5, 5, 3);
    IDS(t, "a", 2, 2, 3);
    char longest[102];
    memset(longest, 'a', 101);
    longest[101] = '\0';
    IDS(t, longest, 8, 2, 1, 3); /* more than 100 characters */
    check_ids(t, "a\0cat", 5, 8, (const int32_t[]){2, 1, 3}, 3);
    mode_tokenizer_close(&t);
    assert_null(t);

    put("tokenizer_config.json", "{\"do_lower_case\": false}");
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_OK);
    IDS(t, "Cat cat", 8, 2, 14, 6, 3);
    IDS(t, "caf\xc3\xa9", 8, 2, 1, 3);
    mode_tokenizer_close(&t);
    drop("tokenizer_config.json");
}

#define JSON(normalizer, extra)                                                                                        \
    "{\"added_tokens\":[{\"id\":4,\"content\":\"[MASK]\"" extra "}],"                                                  \
    "\"normalizer\":{\"type\":\"" normalizer "\",\"lowercase\":true},"                                                 \
    "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"                                                               \
    "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",3],\"cls\":[\"[CLS]\",2]},"                    \
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\","                  \
    "\"max_input_chars_per_word\":100,\"vocab\":{\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"[MASK]\":4,\"a\":5,\"##b\":6}}" \
    "}"

static void test_tokenizer_json(void **state)
{
    (void)state;
    struct mode_tokenizer *t;
    struct mode_error err = {0};
    put("tokenizer.json", JSON("BertNormalizer", ""));
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_OK);
    assert_int_equal(mode_tokenizer_vocab_size(t), 7);
    IDS(t, "AB a[MASK]", 8, 2, 5, 6, 5, 4, 3);
    assert_int_equal(mode_tokenizer_pad_id(t), 0);
    mode_tokenizer_close(&t);
    put("tokenizer.json", JSON("BertNormalizer", ",\"lstrip\":true")); /* blanks give no ids anyway */
    put("tokenizer_config.json", "{\"do_lower_case\":false,\"pad_token\":{\"content\":\"[MASK]\"}}");
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_OK);
    IDS(t, "ab AB a [MASK]", 8, 2, 5, 6, 1, 5, 4, 3);
    assert_int_equal(mode_tokenizer_pad_id(t), 4);
    mode_tokenizer_close(&t);
    drop("tokenizer_config.json");
    static const struct {
        const char *json, *words;
    } bad[] = {
        {JSON("Lowercase", ""), "normalizer is \"Lowercase\""},
        {JSON("BertNormalizer", ",\"single_word\":true"), "single_word"},
        {JSON("BertNormalizer", ",\"normalized\":true"), "normalized"},
        {"{}", "normalizer is \"missing\""},
        {"[]", "not a JSON object"},
        {"{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"Whitespace\"}}",
         "pre_tokenizer is \"Whitespace\""},
        {"{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{"
         "\"type\":\"BPE\"}}",
         "model is \"BPE\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put("tokenizer.json", bad[i].json);
        assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_E_FORMAT);
        if (!strstr(err.text, bad[i].words)) fail_msg("%s: expected \"%s\"", err.text, bad[i].words);
        assert_null(t);
    }
    drop("tokenizer.json");
    put("vocab.txt", "<s>\na\n\na\r\n[UNK]\n[SEP]"); /* of two equal ones the later counts */
    put("tokenizer_config.json", "{\"cls_token\":\"<s>\"}");
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_OK);
    IDS(t, "a<s>b", 8, 0, 3, 0, 4, 5);
    mode_tokenizer_close(&t);
    put("tokenizer_config.json", "[]");
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_E_FORMAT);
    drop("tokenizer_config.json");
    put("vocab.txt", "a\nb\n");
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_E_FORMAT);
    drop("vocab.txt");
    assert_int_equal(mode_tokenizer_open_bert(&t, dir, &err), MODE_E_NOINPUT);
}

/* ---- CLIP ------------------------------------------------------------------------------------------------ */

enum { N_MERGES = 48894, N_PAIRS = 40000 };
static char *symbol[512];
static char *merged[N_MERGES];
static int32_t left_of[N_MERGES], right_of[N_MERGES];

static const char *name_of(int32_t id)
{
    return id < 512 ? symbol[id] : merged[id - 512];
}

/* Merges of two bytes in a shuffled order, then merges of two such pairs. */
static void make_merges(void)
{
    struct mode_str s = {0};
    char u[5] = {0};
    int n = 0;
    for (int pass = 0, stand_in = 256; pass < 2; pass++)
        for (int byte = 0; byte < 256; byte++) {
            int printable = (byte >= 33 && byte <= 126) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
            if (printable != (pass == 0)) continue;
            u[mode_utf8_put((uint32_t)(printable ? byte : stand_in++), u)] = '\0';
            symbol[n] = mode_xasprintf("%s", u);
            symbol[256 + n++] = mode_xasprintf("%s</w>", u);
        }
    mode_str_add_cstr(&s, "#version: test\n");
    for (int32_t k = 0; k < N_MERGES; k++) {
        int64_t place = ((int64_t)k * 48611) % (256 * 512); /* each pair once: 48611 is odd */
        left_of[k] = k < N_PAIRS ? (int32_t)(place / 512) : 512 + (k - N_PAIRS);
        right_of[k] = k < N_PAIRS ? (int32_t)(place % 512) : 512 + (k * 7 + 3) % N_PAIRS;
        merged[k] = mode_xasprintf("%s%s", name_of(left_of[k]), name_of(right_of[k]));
        mode_str_printf(&s, "%s %s\n", name_of(left_of[k]), name_of(right_of[k]));
    }
    put("merges.txt", s.data);
    mode_str_clear(&s);
}

/* The definition: find the lowest-ranked pair present, merge all of it from left to right, repeat. */
static int slow_bpe(int32_t *id, int n)
{
    for (;;) {
        int best = N_MERGES;
        for (int i = 0; i + 1 < n; i++)
            for (int k = 0; k < best; k++)
                if (left_of[k] == id[i] && right_of[k] == id[i + 1]) best = k;
        if (best == N_MERGES) return n;
        int m = 0;
        for (int i = 0; i < n; m++) {
            bool hit = i + 1 < n && id[i] == left_of[best] && id[i + 1] == right_of[best];
            id[m] = hit ? 512 + best : id[i];
            i += hit ? 2 : 1;
        }
        n = m;
    }
}

static json_t *get(const char *name)
{
    char *path = in_dir(name);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    remove(path);
    free(path);
    return root;
}

/* The files for Hugging Face's classes: each token with its id, each merge in order, and both in one file, too. */
static void check_vocabulary_files(const char *merges)
{
    struct mode_error err = {0};
    assert_int_equal(mode_clip_vocab_write(dir, merges, 77, &err), MODE_OK);
    json_t *ids = get("vocab.json"), *whole = get("tokenizer.json"), *config = get("tokenizer_config.json");
    json_t *model = json_object_get(whole, "model"), *list = json_object_get(model, "merges");
    json_decref(get("special_tokens_map.json"));
    assert_int_equal(json_integer_value(json_object_get(config, "model_max_length")), 77);
    assert_int_equal(json_object_size(ids), 49408);
    assert_int_equal(json_array_size(list), N_MERGES);
    for (int i = 0; i < 512; i++) assert_int_equal(json_integer_value(json_object_get(ids, symbol[i])), i);
    for (int k = 0; k < N_MERGES; k++) {
        char *pair = mode_xasprintf("%s %s", name_of(left_of[k]), name_of(right_of[k]));
        assert_string_equal(json_string_value(json_array_get(list, (size_t)k)), pair);
        assert_int_equal(json_integer_value(json_object_get(ids, merged[k])), 512 + k);
        free(pair);
    }
    assert_true(json_equal(ids, json_object_get(model, "vocab")));
    const char *const around[] = {"sep", "cls"};
    for (int i = 0; i < 2; i++) {
        json_t *pair = json_object_get(json_object_get(whole, "post_processor"), around[i]);
        assert_int_equal(json_integer_value(json_array_get(pair, 1)), 49407 - i);
        assert_true(json_equal(json_object_get(ids, json_string_value(json_array_get(pair, 0))),
                               json_array_get(pair, 1)));
    }
    json_decref(ids);
    json_decref(whole);
    json_decref(config);
}

static void test_bpe_merges_in_rank_order(void **state)
{
    (void)state;
    struct mode_tokenizer *t;
    struct mode_error err = {0};
    struct mode_rng rng = mode_rng_for(1, MODE_RNG_TEST, 0, 0);
    char *path = in_dir("merges.txt");
    make_merges();
    assert_int_equal(mode_tokenizer_open_clip(&t, path, MODE_CLIP_CLEAN_OPENAI, &err), MODE_OK);
    assert_int_equal(mode_tokenizer_vocab_size(t), 49408);
    for (int round = 0; round < 30; round++) {
        char word[64];
        int32_t want[66], got[66];
        int n = 1 + (int)mode_rng_below(&rng, 12);
        for (int i = 0; i < n; i++) {
            word[i] = (char)('a' + mode_rng_below(&rng, round % 2 ? 3 : 26)); /* few letters: overlapping pairs */
            want[i + 1] = (int32_t)(word[i] - '!') + (i + 1 == n ? 256 : 0);
        }
        int n_want = slow_bpe(want + 1, n) + 2;
        want[0] = 49406;
        want[n_want - 1] = 49407;
        int n_got = mode_tokenizer_encode(t, word, (size_t)n, got, 66);
        assert_int_equal(n_got, n_want);
        assert_memory_equal(got, want, (size_t)n_got * sizeof *got);
    }
    char *giant = mode_xmalloc(1 << 20); /* one word of a million letters must not take quadratic time */
    for (int i = 0; i < 1 << 20; i++) giant[i] = (char)('a' + mode_rng_below(&rng, 26));
    int32_t ids[77];
    assert_int_equal(mode_tokenizer_encode(t, giant, 1 << 20, ids, 77), 77);
    assert_int_equal(ids[76], 49407);
    free(giant);
    IDS(t, "<start_of_text><END_OF_TEXT>", 8, 49406, 49406, 49407, 49407);
    mode_tokenizer_close(&t);
    check_vocabulary_files(path);

    /* damaged files */
    char *text;
    size_t size;
    assert_int_equal(mode_file_read(path, 0, &text, &size, &err), MODE_OK);
    put("merges.txt", "#version\na b\n");
    assert_int_equal(mode_tokenizer_open_clip(&t, path, MODE_CLIP_CLEAN_OPENAI, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "line 3"));
    put("merges.txt", "#version\na b\na b\n");
    assert_int_equal(mode_tokenizer_open_clip(&t, path, MODE_CLIP_CLEAN_OPENAI, &err), MODE_E_FORMAT);
    put("merges.txt", "#version\nab c\n");
    assert_int_equal(mode_tokenizer_open_clip(&t, path, MODE_CLIP_CLEAN_OPENAI, &err), MODE_E_FORMAT);
    put("merges.txt", "\x1f\x8b\x08 this is not gzip");
    assert_int_equal(mode_tokenizer_open_clip(&t, path, MODE_CLIP_CLEAN_OPENAI, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "truncated"));
    assert_int_equal(mode_tokenizer_open_clip(&t, "/nonexistent", MODE_CLIP_CLEAN_OPENAI, &err), MODE_E_NOINPUT);
    free(text);
    free(path);
    for (int i = 0; i < 512; i++) free(symbol[i]);
    for (int i = 0; i < N_MERGES; i++) free(merged[i]);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return mode_dir_remove(dir, NULL) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wordpiece),
        cmocka_unit_test(test_tokenizer_json),
        cmocka_unit_test(test_bpe_merges_in_rank_order),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
