/* kernels.h - launchers of our kernels, with C linkage, one per kernel or chain of kernels. Inside nn/cuda only.
 *
 * All pointers are device memory, row-major; launches are asynchronous on `stream`. void * is an activation: bf16 where
 * `bf16` is set, else f32; everything else is f32 unless said otherwise, and so is all arithmetic. No atomics: the
 * order of reductions depends on the shapes alone (for an embedding table's gradient: on the ids), so results are
 * deterministic. Letters as in nn/ops.h. */
#ifndef MODE_NN_CUDA_KERNELS_H
#define MODE_NN_CUDA_KERNELS_H

#include "nn/pixels.h"
#include "nn/update.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* rows.cu: c [m, n] = act(from), act: enum mode_act; or, where bias [n] is not NULL, from + bias. c may be from. */
void mode__cuda_epilogue(cudaStream_t stream, bool bf16, void *c, const void *from, int64_t m, int64_t n,
                         const void *bias, int act);
/* dz *= act'(z), both [m, n] */
void mode__cuda_activate_back(cudaStream_t stream, bool bf16, void *dz, const void *z, int64_t m, int64_t n, int act);
/* out [n] += column sums of x [m, n]. work: mode__cuda_sum_work(m, n) floats */
void mode__cuda_column_sums(cudaStream_t stream, bool bf16, float *out, float *work, const void *x, int64_t m,
                            int64_t n);
int64_t mode__cuda_sum_work(int64_t m, int64_t n);
/* out [n] += sums over part [chunks, n]; with `also` (may be NULL) out and also += sums over part [chunks, 2, n] */
void mode__cuda_add_chunks(cudaStream_t stream, float *out, float *also, const float *part, int64_t chunks, int64_t n);

/* norm.cu: d is at most MODE__CUDA_NORM_MOST, more than any model's width; y may be x, dx may be dy or add */
enum { MODE__CUDA_NORM_MOST = 16384 };
void mode__cuda_layernorm(cudaStream_t stream, bool bf16, void *y, float *stats, const void *x, const float *w,
                          const float *b, int64_t m, int64_t d, float eps);
/* work: mode__cuda_norm_work(m, d) floats */
void mode__cuda_layernorm_back(cudaStream_t stream, bool bf16, void *dx, float *dw, float *db, float *work,
                               const void *dy, const void *x, const float *stats, const float *w, const void *add,
                               int64_t m, int64_t d);
int64_t mode__cuda_norm_work(int64_t m, int64_t d);

/* rows.cu */
void mode__cuda_l2norm(cudaStream_t stream, bool bf16, float *y, float *norm, const void *x, int64_t m, int64_t d);
void mode__cuda_l2norm_back(cudaStream_t stream, bool bf16, void *dx, const float *dy, const float *y,
                            const float *norm, int64_t m, int64_t d);
void mode__cuda_scale(cudaStream_t stream, bool bf16, void *y, const void *x, const float *g, const void *add,
                      int64_t m, int64_t d);
/* work: mode__cuda_sum_work(m, d) floats */
void mode__cuda_scale_back(cudaStream_t stream, bool bf16, void *dx, float *dg, float *work, const void *dy,
                           const void *x, const float *g, int64_t m, int64_t d);
void mode__cuda_mean_rows(cudaStream_t stream, bool bf16, void *y, const void *x, const int32_t *offsets, int64_t n_seq,
                          int64_t d, int64_t skip);
void mode__cuda_mean_rows_back(cudaStream_t stream, bool bf16, void *dx, const void *dy, const int32_t *offsets,
                               int64_t n_seq, int64_t d, int64_t skip);
void mode__cuda_gather(cudaStream_t stream, bool bf16, void *y, const void *x, const int32_t *rows, int64_t n,
                       int64_t d);
void mode__cuda_scatter_add(cudaStream_t stream, bool bf16, void *x, const void *y, const int32_t *rows, int64_t n,
                            int64_t d);

/* pixels.cu: cols of pictures first .. first + n - 1, n at most MODE__CUDA_PIXELS_MOST. between: the intermediate
 * pictures, n times `room` bytes of scratch, room a multiple of 16 and at least mode_pixels_between of each. */
enum { MODE__CUDA_PIXELS_MOST = 65535 };
void mode__cuda_picture_patches(cudaStream_t stream, bool bf16, void *cols, uint8_t *between, int64_t room,
                                const struct mode_pictures *pictures, int64_t first, int64_t n, int64_t side,
                                int64_t p);

/* embed.cu: r rows of n_seq sequences */
void mode__cuda_embed(cudaStream_t stream, bool bf16, void *x, const float *table, const float *pos, const int32_t *ids,
                      const int32_t *offsets, int64_t r, int64_t n_seq, int64_t d);
/* work: mode__cuda_embed_work(r, d) bytes, aligned to 16 */
void mode__cuda_embed_back(cudaStream_t stream, bool bf16, float *dtable, float *dpos, void *work, const void *dx,
                           const int32_t *ids, const int32_t *offsets, int64_t r, int64_t n_seq, int64_t n_pos,
                           int64_t d);
size_t mode__cuda_embed_work(int64_t r, int64_t d);
/* keys = id << 32 | row for every row of ids [rows], sorted; mode__cuda_sorted_bytes(rows), aligned to 8 */
void mode__cuda_sorted(cudaStream_t stream, void *keys, const int32_t *ids, int64_t rows);
size_t mode__cuda_sorted_bytes(int64_t rows);
void mode__cuda_patches(cudaStream_t stream, bool bf16, void *cols, const float *pixels, int64_t n, int64_t side,
                        int64_t p);
void mode__cuda_image_tokens(cudaStream_t stream, bool bf16, void *x, const void *patch, const float *cls,
                             const float *pos, const int32_t *kept, int64_t n, int64_t tokens, int64_t positions,
                             int64_t d);
void mode__cuda_image_tokens_back(cudaStream_t stream, bool bf16, void *dpatch, float *dcls, float *dpos,
                                  const void *dx, const int32_t *kept, int64_t n, int64_t tokens, int64_t positions,
                                  int64_t d);

/* loss.cu: does this program contain kernels for this GPU? cudaErrorNoKernelImageForDevice: no */
cudaError_t mode__cuda_has_kernels(void);
/* loss.cu: on a block of rows of cosines [rows, n]. Forward: row [rows] and col [n] become the log-sum-exps of logits;
 * add: col is combined with what earlier rows gave. */
void mode__cuda_contrastive(cudaStream_t stream, double *row, double *col, const float *cosines,
                            const float *logit_scale, int64_t rows, int64_t n, bool add);
/* col [n]: the log-sum-exp of the columns of each [size, n], all f64 */
void mode__cuda_join_columns(cudaStream_t stream, double *col, const double *each, int64_t size, int64_t n);
/* Backward: cosines become the gradient of a b^T (exp(logit_scale) included). Row 0's positive is column `diagonal`.
 * part and slope [rows]: each row's contribution to 2 n times the loss, and to logit_scale's gradient. */
void mode__cuda_contrastive_back(cudaStream_t stream, float *cosines, double *part, double *slope, const double *row,
                                 const double *col, const float *logit_scale, int64_t rows, int64_t n,
                                 int64_t diagonal);
/* *loss becomes the sum of part [m] / 2 n, *dlogit_scale += that of slope [m] */
void mode__cuda_contrastive_end(cudaStream_t stream, double *loss, float *dlogit_scale, const double *part,
                                const double *slope, int64_t m, int64_t n);

/* optim.cu: a multi-tensor launch over up to MODE__PIECES parameters; kernels take 4 KiB of arguments */
enum { MODE__PIECES = 64 };
struct mode__cuda_piece {
    float *w, *m, *v; /* squares need g alone */
    const float *g;
    void *copy; /* bf16: w rounded, or NULL */
    int64_t n;
    int first; /* its first block; it and `wide` (16-byte accesses) are set by mode__cuda_add_piece */
    bool decay, wide;
};
struct mode__cuda_pieces {
    int n, blocks; /* thread blocks */
    struct mode__cuda_piece of[MODE__PIECES];
};
void mode__cuda_add_piece(struct mode__cuda_pieces *p, struct mode__cuda_piece x); /* x.n > 0 */
void mode__cuda_adamw(cudaStream_t stream, const struct mode__cuda_pieces *p, const struct mode_adamw_step *s);
/* part [p->blocks]: partial sums of squares; mode__cuda_square_parts: how many n elements have */
void mode__cuda_squares(cudaStream_t stream, double *part, const struct mode__cuda_pieces *p);
int64_t mode__cuda_square_parts(int64_t n);
void mode__cuda_add_up(cudaStream_t stream, double *sum, const double *part, int64_t n);
void mode__cuda_rounded(cudaStream_t stream, void *to, const float *from, int64_t n);
void mode__cuda_clamp(cudaStream_t stream, float *x, float low, float high, int64_t n);

/* fp8.cu (fp8.h): parts [mode__cuda_fp8_parts(n)]: partial maxima of |x|, x [n] bf16; n is a multiple of 16, x aligned
 * to 16 bytes. NaN is ignored. */
int64_t mode__cuda_fp8_parts(int64_t n);
void mode__cuda_fp8_largest(cudaStream_t stream, float *parts, const void *x, int64_t n);
/* Quantise: to [n] = x 2^s as E4M3 or, wide, E5M2, and *back = 2^-s; s, from the parts, scales amax into the format's
 * top octaves. Non-finite values become NaN. */
void mode__cuda_fp8_round(cudaStream_t stream, uint8_t *to, float *back, const float *parts, const void *x, int64_t n,
                          bool wide);
/* The same, transposed: x [rows, cols] to E4M3 [cols, rows]. Both are multiples of 16. */
void mode__cuda_fp8_transpose(cudaStream_t stream, uint8_t *to, float *back, const float *parts, const void *x,
                              int64_t rows, int64_t cols);

/* nearest.cu: squares [m] = squared norms of the rows of x [m, d], accumulated in double */
void mode__cuda_row_squares(cudaStream_t stream, float *squares, const float *x, int64_t m, int64_t d);
/* dot [n, k] = x c^T becomes the costs of nn/ops.h. x_sq [n], c_sq [k]; both NULL: 1 - x.c */
void mode__cuda_costs(cudaStream_t stream, float *dot, const float *x_sq, const float *c_sq, int64_t n, int64_t k);
/* Rows in fp16 for a GEMM, each scaled by a power of two. */
struct mode__cuda_halved {
    float back, size, off; /* x is about back times its fp16 row; bounds of |x| and of the error's norm */
};
/* Layouts: row-major, padded with zeros to multiples of 16 bytes; or tiles of 128 rows by 64 columns, 16 KB each,
 * swizzled as in hopper.cuh, the tiles of the same rows consecutive, both dimensions padded with zeros. */
enum { MODE__CUDA_TILE_ROWS = 128, MODE__CUDA_ROW_PADDING = 256, MODE__CUDA_CENTRE_PADDING = 256 };
static inline int64_t mode__cuda_halves_width(int64_t d, bool tiles)
{
    return tiles ? (d + 63) / 64 * 64 : (d + 7) / 8 * 8;
}
static inline int64_t mode__cuda_halves_rows(int64_t m, bool tiles)
{
    return tiles ? (m + MODE__CUDA_ROW_PADDING - 1) / MODE__CUDA_ROW_PADDING * MODE__CUDA_ROW_PADDING : m;
}
static inline size_t mode__cuda_halves_bytes(int64_t m, int64_t d, bool tiles)
{
    return (size_t)(mode__cuda_halves_rows(m, tiles) * mode__cuda_halves_width(d, tiles)) * 2;
}
/* h, of [m] from x [m, d]. largest: from mode__cuda_largest, for one scale for all rows; NULL: a scale per row */
void mode__cuda_halves(cudaStream_t stream, void *h, struct mode__cuda_halved *of, const float *x, int64_t m, int64_t d,
                       const float *largest, bool tiles);
/* largest [MODE__CUDA_PARTS]: partial maxima of |x|, x [n] */
enum { MODE__CUDA_PARTS = 64 };
void mode__cuda_largest(cudaStream_t stream, float *largest, const float *x, int64_t n);
/* From centres [k, d] and `of` [k] of their halves, which share a scale: the terms of ranks. A rank is the score of a
 * centre for a row, |x - c|^2 or 1 - x.c up to a constant of the row: plus - back times (h of x).(h of c), times being
 * most[2]. plus is infinite in the padding of k. */
struct mode__cuda_centres {
    float *plus, *most; /* [k, padded to MODE__CUDA_CENTRE_PADDING]; [3]: the largest size and off; times */
};
void mode__cuda_halved_centres(cudaStream_t stream, const struct mode__cuda_centres *c,
                               const struct mode__cuda_halved *of, const float *centres, int64_t k, int64_t d,
                               bool cosine);
struct mode__cuda_nearest {
    const float *dot, *x, *c; /* [n, k] dot products of halves; [n, d]; [k, d] */
    const struct mode__cuda_halved *x_of;
    struct mode__cuda_centres centres;
    int64_t n, k, d;
    bool cosine;
};
/* id [n], distance [n] (may be NULL): exact, although dot is approximate */
void mode__cuda_nearest(cudaStream_t stream, int32_t *id, float *distance, const struct mode__cuda_nearest *a);
/* The same from nearest_hopper.cu's state, in id: a centre; or -m: the row's first m candidates; or
 * MODE__CUDA_ANY_CENTRE. dot is not read. */
enum { MODE__CUDA_CANDIDATES = 24, MODE__CUDA_ANY_CENTRE = -1 };
void mode__cuda_measured(cudaStream_t stream, int32_t *id, float *distance, const int32_t *candidates,
                         const struct mode__cuda_nearest *a);

/* nearest_hopper.cu, for compute capability 9.0 only: a GEMM of tiles x [n, d] and c [k, d], fused with the search:
 * only the candidates leave registers, as state [n] and candidates [n, MODE__CUDA_CANDIDATES]. spin_limit: failed polls
 * of barriers after which a thread stops waiting, below 0: unlimited. most: the number of clusters (of two SMs), at
 * most; 0: as many as are resident. */
struct mode__cuda_tiles {
    const void *x, *c;
    const struct mode__cuda_halved *x_of;
    struct mode__cuda_centres centres;
    int64_t n, k, d;
    bool cosine;
    int spin_limit;
};
cudaError_t mode__cuda_nearest_tiles(cudaStream_t stream, int32_t *state, int32_t *candidates,
                                     const struct mode__cuda_tiles *a, int most);

/* groups.cu: first [k + 1] and members [n] of groups from id [n] in [0, k). work: mode__cuda_group_bytes(n, k), aligned
 * to 8 */
void mode__cuda_group_rows(cudaStream_t stream, int32_t *first, int32_t *members, void *work, const int32_t *id,
                           int64_t n, int64_t k);
size_t mode__cuda_group_bytes(int64_t n, int64_t k);
/* n: number of members. sum [mode__cuda_mean_places(groups, n), d] is scratch */
enum { MODE__CUDA_PIECE_ROWS = 256 };
static inline int64_t mode__cuda_mean_places(int64_t groups, int64_t n)
{
    return n / MODE__CUDA_PIECE_ROWS + groups;
}
void mode__cuda_group_means(cudaStream_t stream, float *means, double *sum, const float *x, const int32_t *first,
                            const int32_t *members, int64_t groups, int64_t n, int64_t d, bool unit);

#ifdef __cplusplus
}
#endif
#endif
