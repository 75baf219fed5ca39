/* winners.h - algorithms of matrix products that the clock chose, by what they depend on; and as a text, to be kept.
 * Inside nn/cuda only.
 *
 * A line of the text: the numbers of the key in their order, then the algorithm's 8 words of 16 hexadecimal digits.
 * cuBLASLt says of these words that they may be stored and given to the same version of it again (cublasLt.h,
 * cublasLtMatmulAlgo_t); it checks them before it uses them. Where a product ends with an activation they are cuDNN's
 * version, which the text is then for, an engine, and kind + 1 and value of its knobs; all 0: ours was faster. */
#ifndef MODE_NN_CUDA_WINNERS_H
#define MODE_NN_CUDA_WINNERS_H

#include "base/error.h"
#include "base/str.h"

#include <cublasLt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode__product_key { /* all that an algorithm depends on; compared as bytes */
    int64_t m, n, k;
    int32_t a_turned, b_turned, bf16, c_bf16, f16, fp8, bias, add;
    int32_t align_a, align_b, align_c, align_d;
    int32_t act; /* of a product that ends with an activation (product_act.h), whose algorithm is cuDNN's or none; 0 */
};
enum { MODE__PRODUCT_KEY_NUMBERS = 16 };
size_t mode__product_hash(const struct mode__product_key *k);

struct mode__winners;
struct mode__winners *mode__winners_new(void);
void mode__winners_free(struct mode__winners *w);
const cublasLtMatmulAlgo_t *mode__winner(const struct mode__winners *w,
                                         const struct mode__product_key *k); /* or NULL */
void mode__winner_set(struct mode__winners *w, const struct mode__product_key *k, const cublasLtMatmulAlgo_t *algo);
/* Of the first winner that is an engine of cuDNN, its version; 0: none is. */
size_t mode__winners_cudnn(const struct mode__winners *w);
void mode__winners_print(const struct mode__winners *w, struct mode_str *to);
/* Lines from number `line` on become winners; MODE_E_FORMAT says which one is none. */
enum mode_status mode__winners_parse(struct mode__winners *w, const char *text, int line, struct mode_error *err);

/* product.c: those of a backend, for product_act.c */
struct mode__products;
bool mode__products_measuring(const struct mode__products *p);
const cublasLtMatmulAlgo_t *mode__product_kept(const struct mode__products *p,
                                               const struct mode__product_key *k); /* or NULL */
void mode__product_keep(struct mode__products *p, const struct mode__product_key *k, const cublasLtMatmulAlgo_t *words);
int64_t mode__product_alike(int64_t rows); /* one number of rows for all that are alike */

#endif
