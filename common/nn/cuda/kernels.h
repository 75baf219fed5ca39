/* kernels.h - what runs on the GPU: launchers with C linkage, one per kernel or chain of kernels. Inside nn/cuda only.
 *
 * All pointers are device memory, row-major; every launch goes to `stream` and returns at once. What is
 * void * is an activation: bf16 where `bf16` is set, else f32; the other numbers are f32 unless said otherwise, and so
 * is all arithmetic. No atomics: sums are made in an order set by the shapes (of a table's gradient: by the ids) alone,
 * so the same inputs give the same bytes. Letters as in nn/ops.h. */
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

/* norm.cu: d at most MODE__CUDA_NORM_MOST, which no model's width exceeds; y may be x, dx may be dy or add */
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

/* pixels.cu: cols of pictures first .. first + n - 1, n at most MODE__CUDA_PIXELS_MOST. between: n times `room` bytes
 * of scratch, mode_pixels_between of each or more, a multiple of 16. */
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
                             const float *pos, int64_t n, int64_t tokens, int64_t d);
void mode__cuda_image_tokens_back(cudaStream_t stream, bool bf16, void *dpatch, float *dcls, float *dpos,
                                  const void *dx, int64_t n, int64_t tokens, int64_t d);

/* loss.cu: has this program kernels for this GPU? cudaErrorNoKernelImageForDevice: no */
cudaError_t mode__cuda_has_kernels(void);
/* loss.cu: over rows of cosines [rows, n] at a time. Forward: row [rows] and col [n] become the log-sum-exps of logits;
 * add: col keeps what earlier rows gave. */
void mode__cuda_contrastive(cudaStream_t stream, double *row, double *col, const float *cosines,
                            const float *logit_scale, int64_t rows, int64_t n, bool add);
/* col [n]: the log-sum-exp of the columns of each [size, n], all f64 */
void mode__cuda_join_columns(cudaStream_t stream, double *col, const double *each, int64_t size, int64_t n);
/* Back: cosines become the gradient by a b^T (exp(logit_scale) included). Row 0's pair is column `diagonal`. part and
 * slope [rows]: of each row, its share of 2 n times the loss and of logit_scale's gradient. */
void mode__cuda_contrastive_back(cudaStream_t stream, float *cosines, double *part, double *slope, const double *row,
                                 const double *col, const float *logit_scale, int64_t rows, int64_t n,
                                 int64_t diagonal);
/* *loss becomes the sum of part [m] / 2 n, *dlogit_scale += that of slope [m] */
void mode__cuda_contrastive_end(cudaStream_t stream, double *loss, float *dlogit_scale, const double *part,
                                const double *slope, int64_t m, int64_t n);

/* optim.cu: pieces of parameters, up to MODE__PIECES in one launch; kernels take 4 KiB of arguments */
enum { MODE__PIECES = 64 };
struct mode__cuda_piece {
    float *w, *m, *v; /* only g for the squares */
    const float *g;
    void *copy; /* bf16: w rounded, or NULL */
    int64_t n;
    int first; /* of its blocks; it and `wide` are set by mode__cuda_add_piece */
    bool decay, wide;
};
struct mode__cuda_pieces {
    int n, blocks; /* of threads */
    struct mode__cuda_piece of[MODE__PIECES];
};
void mode__cuda_add_piece(struct mode__cuda_pieces *p, struct mode__cuda_piece x); /* x.n > 0 */
void mode__cuda_adamw(cudaStream_t stream, const struct mode__cuda_pieces *p, const struct mode_adamw_step *s);
/* part [p->blocks]: sums of squares; mode__cuda_square_parts: how many a piece of n numbers has */
void mode__cuda_squares(cudaStream_t stream, double *part, const struct mode__cuda_pieces *p);
int64_t mode__cuda_square_parts(int64_t n);
void mode__cuda_add_up(cudaStream_t stream, double *sum, const double *part, int64_t n);
void mode__cuda_rounded(cudaStream_t stream, void *to, const float *from, int64_t n);
void mode__cuda_clamp(cudaStream_t stream, float *x, float low, float high, int64_t n);

/* fp8.cu (fp8.h): parts [mode__cuda_fp8_parts(n)]: maxima of |x| over parts of x [n] bf16; n is a multiple of 16, x
 * lies at a multiple of 16 bytes. What is not a number does not count. */
int64_t mode__cuda_fp8_parts(int64_t n);
void mode__cuda_fp8_largest(cudaStream_t stream, float *parts, const void *x, int64_t n);
/* to [n] = x 2^s as E4M3 or, wide, E5M2, and *back = 2^-s, with s from the parts: the largest |x| comes to lie in the
 * format's last octaves. What is not finite becomes NaN. */
void mode__cuda_fp8_round(cudaStream_t stream, uint8_t *to, float *back, const float *parts, const void *x, int64_t n,
                          bool wide);
/* the same of x [rows, cols], E4M3; to [cols, rows]. Both are multiples of 16. */
void mode__cuda_fp8_turn(cudaStream_t stream, uint8_t *to, float *back, const float *parts, const void *x, int64_t rows,
                         int64_t cols);

/* nearest.cu: squares [m] = squared lengths of the rows of x [m, d], added up in double */
void mode__cuda_row_squares(cudaStream_t stream, float *squares, const float *x, int64_t m, int64_t d);
/* dot [n, k] = x c^T becomes the costs of nn/ops.h. x_sq [n], c_sq [k]; both NULL: 1 - x.c */
void mode__cuda_costs(cudaStream_t stream, float *dot, const float *x_sq, const float *c_sq, int64_t n, int64_t k);
/* Rows in fp16, each times a power of two, for products. */
struct mode__cuda_halved {
    float back, size, off; /* the row in fp16 times back is near x; |x| and |x - that| are at most these */
};
/* How they lie: row after row, filled up with zeros to multiples of 16 bytes; or as tiles of 128 rows by 64 columns, 16
 * KB each, as hopper.cuh has them, tiles of the same rows one behind another, both sizes filled up with zeros. */
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
/* h, of [m] from x [m, d]. largest: as mode__cuda_largest left it, for one power of two for all rows; NULL: each its
 * own */
void mode__cuda_halves(cudaStream_t stream, void *h, struct mode__cuda_halved *of, const float *x, int64_t m, int64_t d,
                       const float *largest, bool tiles);
/* largest [MODE__CUDA_PARTS]: of the magnitudes in that many parts of x [n] */
enum { MODE__CUDA_PARTS = 64 };
void mode__cuda_largest(cudaStream_t stream, float *largest, const float *x, int64_t n);
/* Centres [k, d] and their halves' `of` [k], one power of two for all, become the terms of ranks, which differ from
 * what is to be minimal, |x - c|^2 or 1 - x.c, by the same for all centres: plus - back times (h of x).(h of c), where
 * times is most[2]. plus of what fills up k is infinite. */
struct mode__cuda_centres {
    float *plus, *most; /* [k, filled up to MODE__CUDA_CENTRE_PADDING]; [3]: the largest size and off; times */
};
void mode__cuda_halved_centres(cudaStream_t stream, const struct mode__cuda_centres *c,
                               const struct mode__cuda_halved *of, const float *centres, int64_t k, int64_t d,
                               bool cosine);
struct mode__cuda_nearest {
    const float *dot, *x, *c; /* [n, k] products of halves, [n, d], [k, d] */
    const struct mode__cuda_halved *x_of;
    struct mode__cuda_centres centres;
    int64_t n, k, d;
    bool cosine;
};
/* id [n], distance [n] (may be NULL): exact, from dot products that are not */
void mode__cuda_nearest(cudaStream_t stream, int32_t *id, float *distance, const struct mode__cuda_nearest *a);
/* The same from what nearest_hopper.cu leaves in id: a centre, -m for the first m of the row's candidates, or
 * MODE__CUDA_ANY_CENTRE; dot is not read. */
enum { MODE__CUDA_CANDIDATES = 24, MODE__CUDA_ANY_CENTRE = -1 };
void mode__cuda_measured(cudaStream_t stream, int32_t *id, float *distance, const int32_t *candidates,
                         const struct mode__cuda_nearest *a);

/* nearest_hopper.cu, for compute capability 9.0 alone: products of tiles x [n, d] and c [k, d], of which only that
 * leaves the registers what may be nearest: state [n], candidates [n, MODE__CUDA_CANDIDATES]. patience: how often a
 * thread asks a barrier in vain before it goes on all the same, below 0: never. most: clusters of two multiprocessors
 * that take part; 0: as many as run at once. */
struct mode__cuda_tiles {
    const void *x, *c;
    const struct mode__cuda_halved *x_of;
    struct mode__cuda_centres centres;
    int64_t n, k, d;
    bool cosine;
    int patience;
};
cudaError_t mode__cuda_nearest_tiles(cudaStream_t stream, int32_t *state, int32_t *candidates,
                                     const struct mode__cuda_tiles *a, int most);

/* groups.cu: first [k + 1] and members [n] of groups from id [n] in [0, k). work: mode__cuda_group_bytes(n, k), aligned
 * to 8 */
void mode__cuda_group_rows(cudaStream_t stream, int32_t *first, int32_t *members, void *work, const int32_t *id,
                           int64_t n, int64_t k);
size_t mode__cuda_group_bytes(int64_t n, int64_t k);
/* n: of members. sum [mode__cuda_mean_places(groups, n), d] is scratch */
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
