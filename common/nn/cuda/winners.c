#include "nn/cuda/winners.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 2048, PROBES = 16, WORDS = sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t) };

struct mode__winners {
    struct winner {
        bool used;
        struct mode__product_key key;
        cublasLtMatmulAlgo_t algo;
    } of[PLACES];
};

size_t mode__product_hash(const struct mode__product_key *k)
{
    const unsigned char *p = (const unsigned char *)k;
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *k; i++) h = (h ^ p[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

struct mode__winners *mode__winners_new(void)
{
    return mode_xcalloc(1, sizeof(struct mode__winners));
}

void mode__winners_free(struct mode__winners *w)
{
    free(w);
}

/* The key's slot, or a free one for it: linear probing. */
static size_t place_of(const struct mode__winners *w, const struct mode__product_key *k)
{
    const size_t at = mode__product_hash(k) % PLACES;
    for (size_t i = 0; i < PROBES; i++) {
        const struct winner *x = &w->of[(at + i) % PLACES];
        if (!x->used || memcmp(&x->key, k, sizeof *k) == 0) return (at + i) % PLACES;
    }
    return at;
}

const cublasLtMatmulAlgo_t *mode__winner(const struct mode__winners *w, const struct mode__product_key *k)
{
    const struct winner *x = &w->of[place_of(w, k)];
    return x->used && memcmp(&x->key, k, sizeof *k) == 0 ? &x->algo : NULL;
}

void mode__winner_set(struct mode__winners *w, const struct mode__product_key *k, const cublasLtMatmulAlgo_t *algo)
{
    w->of[place_of(w, k)] = (struct winner){true, *k, *algo};
}

static void numbers_of(int64_t to[MODE__PRODUCT_KEY_NUMBERS], const struct mode__product_key *k)
{
    const int64_t all[MODE__PRODUCT_KEY_NUMBERS] = {
        k->m,   k->n,    k->k,   k->a_transposed, k->b_transposed, k->bf16,    k->c_bf16,  k->f16,
        k->fp8, k->bias, k->add, k->align_a,      k->align_b,      k->align_c, k->align_d, k->act};
    memcpy(to, all, sizeof all);
}

static struct mode__product_key key_of(const int64_t x[MODE__PRODUCT_KEY_NUMBERS])
{
    struct mode__product_key k;
    memset(&k, 0, sizeof k);
    k.m = x[0];
    k.n = x[1];
    k.k = x[2];
    int32_t *const rest[] = {&k.a_transposed, &k.b_transposed, &k.bf16,    &k.c_bf16,  &k.f16,     &k.fp8, &k.bias,
                             &k.add,          &k.align_a,      &k.align_b, &k.align_c, &k.align_d, &k.act};
    for (int i = 0; i < MODE__PRODUCT_KEY_NUMBERS - 3; i++) *rest[i] = (int32_t)x[3 + i];
    return k;
}

size_t mode__winners_cudnn(const struct mode__winners *w)
{
    for (size_t i = 0; i < PLACES; i++)
        if (w->of[i].used && w->of[i].key.act && w->of[i].algo.data[0]) return (size_t)w->of[i].algo.data[0];
    return 0;
}

void mode__winners_print(const struct mode__winners *w, struct mode_str *to)
{
    for (size_t i = 0; i < PLACES; i++) {
        int64_t x[MODE__PRODUCT_KEY_NUMBERS];
        if (!w->of[i].used) continue;
        numbers_of(x, &w->of[i].key);
        for (int j = 0; j < MODE__PRODUCT_KEY_NUMBERS; j++) mode_str_printf(to, "%" PRId64 " ", x[j]);
        for (int j = 0; j < (int)WORDS; j++)
            mode_str_printf(to, "%016" PRIx64 "%s", w->of[i].algo.data[j], j + 1 < (int)WORDS ? " " : "\n");
    }
}

/* Parses one line; returns the start of the next one, or NULL. */
static const char *parse_line(struct mode__winners *w, const char *p)
{
    int64_t x[MODE__PRODUCT_KEY_NUMBERS];
    cublasLtMatmulAlgo_t algo;
    for (int i = 0; i < MODE__PRODUCT_KEY_NUMBERS; i++) {
        const size_t n = strspn(p, "0123456789");
        if (n < 1 || n > (i < 3 ? 18 : 9) || p[n] != ' ') return NULL;
        x[i] = strtoll(p, NULL, 10);
        p += n + 1;
    }
    for (int i = 0; i < (int)WORDS; i++) {
        if (strspn(p, "0123456789abcdef") != 16 || p[16] != (i + 1 < (int)WORDS ? ' ' : '\n')) return NULL;
        algo.data[i] = strtoull(p, NULL, 16);
        p += 17;
    }
    const struct mode__product_key key = key_of(x);
    mode__winner_set(w, &key, &algo);
    return p;
}

enum mode_status mode__winners_parse(struct mode__winners *w, const char *text, int line, struct mode_error *err)
{
    for (; text && *text; line++) {
        text = parse_line(w, text);
        if (!text)
            return MODE_FAIL(err, MODE_E_FORMAT,
                             "algorithms, line %d: expected %d numbers and %d words of 16 hexadecimal digits", line,
                             (int)MODE__PRODUCT_KEY_NUMBERS, (int)WORDS);
    }
    return MODE_OK;
}
