/* winners.h - autotuned GEMM algorithms by their keys, and as a text, to be saved. Inside nn/cuda only.
 *
 * A line of the text: the numbers of the key in order, then the algorithm's 8 words of 16 hexadecimal digits. cuBLASLt
 * allows these words to be stored and used again with the same version of it (cublasLt.h, cublasLtMatmulAlgo_t), and
 * checks them before use. Of a GEMM fused with an activation they are cuDNN's version, which the text is then specific
 * to, an engine, and kind + 1 and value of its knobs; all 0: ours was faster. */
#ifndef MODE_NN_CUDA_WINNERS_H
#define MODE_NN_CUDA_WINNERS_H

#include "base/error.h"
#include "base/str.h"

#include <cublasLt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode__product_key { /* all that an algorithm depends on; compared by memcmp */
    int64_t m, n, k;
    int32_t a_transposed, b_transposed, bf16, c_bf16, f16, fp8, bias, add;
    int32_t align_a, align_b, align_c, align_d;
    int32_t act; /* of a GEMM fused with an activation (product_act.h), whose algorithm is cuDNN's or none; else 0 */
};
enum { MODE__PRODUCT_KEY_NUMBERS = 16 };
size_t mode__product_hash(const struct mode__product_key *k);

struct mode__winners;
struct mode__winners *mode__winners_new(void);
void mode__winners_free(struct mode__winners *w);
const cublasLtMatmulAlgo_t *mode__winner(const struct mode__winners *w,
                                         const struct mode__product_key *k); /* or NULL */
void mode__winner_set(struct mode__winners *w, const struct mode__product_key *k, const cublasLtMatmulAlgo_t *algo);
/* The cuDNN version of the first winner that is a cuDNN engine; 0: none is. */
size_t mode__winners_cudnn(const struct mode__winners *w);
void mode__winners_print(const struct mode__winners *w, struct mode_str *to);
/* Parses lines, numbered from `line` on; MODE_E_FORMAT names the first bad one. */
enum mode_status mode__winners_parse(struct mode__winners *w, const char *text, int line, struct mode_error *err);

/* product.c: a backend's winners, for product_act.c */
struct mode__products;
bool mode__products_measuring(const struct mode__products *p);
const cublasLtMatmulAlgo_t *mode__product_kept(const struct mode__products *p,
                                               const struct mode__product_key *k); /* or NULL */
void mode__product_keep(struct mode__products *p, const struct mode__product_key *k, const cublasLtMatmulAlgo_t *words);
int64_t mode__product_alike(int64_t rows); /* the bucket of a row count */

#endif
