/* backend_impl.h - internals of a backend; for nn/ only. */
#ifndef MODE_NN_BACKEND_IMPL_H
#define MODE_NN_BACKEND_IMPL_H

#include "nn/ops.h"

#include <math.h>

/* One entry per function of struct mode_ops, for the profile. */
#define MODE__OP_LIST(X)                                                                                               \
    X(linear)                                                                                                          \
    X(linear_back)                                                                                                     \
    X(activate)                                                                                                        \
    X(project)                                                                                                         \
    X(project_back)                                                                                                    \
    X(layernorm)                                                                                                       \
    X(layernorm_back)                                                                                                  \
    X(attention)                                                                                                       \
    X(attention_back)                                                                                                  \
    X(embed)                                                                                                           \
    X(embed_back)                                                                                                      \
    X(picture_patches)                                                                                                 \
    X(patches)                                                                                                         \
    X(image_tokens)                                                                                                    \
    X(image_tokens_back)                                                                                               \
    X(gather)                                                                                                          \
    X(scatter_add)                                                                                                     \
    X(scale)                                                                                                           \
    X(scale_back)                                                                                                      \
    X(mean_rows)                                                                                                       \
    X(mean_rows_back)                                                                                                  \
    X(l2norm)                                                                                                          \
    X(l2norm_back)                                                                                                     \
    X(contrastive)                                                                                                     \
    X(join_columns)                                                                                                    \
    X(contrastive_back)                                                                                                \
    X(adamw)                                                                                                           \
    X(grad_squares)                                                                                                    \
    X(rounded)                                                                                                         \
    X(clamp)                                                                                                           \
    X(zero)                                                                                                            \
    X(nearest_rows)                                                                                                    \
    X(costs)                                                                                                           \
    X(group_rows)                                                                                                      \
    X(group_means)

enum mode__op {
#define X(name) MODE__OP_##name,
    MODE__OP_LIST(X)
#undef X
        MODE__N_OPS
};

/* A device's part of nn/staging.h. open: host is allocated and pinned; it sets device. close: also after a failed open.
 */
struct mode_staging;
struct mode__staging_kind {
    enum mode_status (*open)(struct mode_staging *s, struct mode_error *err);
    void (*close)(struct mode_staging *s);
    void (*wait)(struct mode_staging *s);
    void (*send)(struct mode_staging *s, size_t n);
    void (*begin)(struct mode_staging *s);
    void (*end)(struct mode_staging *s);
};

/* The same for nn/results.h. */
struct mode_results;
struct mode__results_kind {
    enum mode_status (*open)(struct mode_results *r, struct mode_error *err);
    void (*close)(struct mode_results *r);
    void (*take)(struct mode_results *r, size_t at, const void *from, size_t n);
    void (*wait)(struct mode_results *r);
};

/* Functions of a device, which has its own memory and runs asynchronously. */
struct mode__device {
    enum mode_status (*open)(struct mode_backend *be, struct mode_error *err); /* sets be->device */
    void (*close)(struct mode_backend *be);
    void (*describe)(const struct mode_backend *be, char *text, size_t size);
    bool (*is_broken)(void); /* a GPU is there, and the driver reports that it has failed */
    enum mode_status (*alloc)(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);
    void (*free)(struct mode_backend *be, void *data);
    void (*room)(const struct mode_backend *be, size_t *left, size_t *total);
    void (*sync)(struct mode_backend *be);
    void (*copy)(struct mode_backend *be, void *to, const void *from, size_t bytes);
    enum mode_status (*share)(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);
    void (*written)(struct mode_backend *be, const void *data, size_t bytes);
    void (*show)(struct mode_backend *be, void *data, size_t bytes);
    void (*pin)(void *data, size_t bytes);
    void (*unpin)(void *data);
    enum mode_status (*ranks)(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting *m,
                              struct mode_error *err);
    const struct mode__staging_kind *staging;
    const struct mode__results_kind *results;
    void (*measure)(struct mode_backend *be, bool products, bool attention);
    char *(*algorithms)(struct mode_backend *be);
    enum mode_status (*use_algorithms)(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                       struct mode_error *err);
    void (*repeat)(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx);
    void (*record)(struct mode_backend *be, bool on);
    void (*repeats)(const struct mode_backend *be, struct mode_backend_repeats *r);
    enum mode_status (*branches)(struct mode_backend *be, struct mode_error *err);
    size_t branches_bytes; /* device memory that they take, without scratch */
    void (*fork)(struct mode_backend *be);
    void (*branch)(struct mode_backend *be, int i);
    void (*join)(struct mode_backend *be);
    /* Called before each op: the tensors that it writes and reads, n entries each, NULL where there is none. */
    void (*uses)(struct mode_backend *be, struct mode_tensor *const *written, const struct mode_tensor *const *read,
                 int n);
    void (*note)(const struct mode_backend *be, FILE *out); /* printed below the profile */
    /* The profiler: begin and end around an op; read adds the times to be->time. */
    void (*clock_begin)(struct mode_backend *be, enum mode__op op);
    void (*clock_end)(struct mode_backend *be);
    void (*clock_read)(struct mode_backend *be);
    size_t (*nearest_ready_bytes)(struct mode_backend *be, int64_t n, int64_t d);
    void (*nearest_ready)(struct mode_backend *be, struct mode_tensor *ready, const struct mode_tensor *x);
};

/* Lanes that ops run in: the branches, then the side stream of each, last the collectives of a group, which are not
 * ops. */
enum { MODE__EXCHANGES = 2 * MODE_BRANCHES, MODE__LANES };

struct mode_backend {
    const struct mode_ops *ops;
    const struct mode__device *kind; /* NULL: a CPU backend */
    void *device;                    /* its own */
    int lane;                        /* the current one */
    struct mode__work {              /* scratch of a lane's running op; grows, never shrinks */
        void *data;
        size_t bytes;
    } work[MODE__LANES];
    struct {
        bool on;
        int64_t made, left;
    } narrow; /* mode_backend_narrow */
    bool profile;
    struct mode__op_time {
        double seconds, products, flops, bytes; /* products: GEMMs' part of seconds, where it is known */
        long calls;
    } time[MODE__N_OPS];
};

/* The lane's scratch, at least `bytes`, aligned to 64, contents undefined; valid until the next call. */
void *mode__backend_work(struct mode_backend *be, size_t bytes);

/* The clipping factor of gradients; false: their norm is non-finite, and the update is skipped. */
static inline bool mode__adamw_factor(float *factor, const struct mode_adamw_step *s)
{
    double norm = s->clip_norm > 0 ? sqrt(s->squares) : 0, f = s->clip_norm / (norm + 1e-6);
    *factor = norm > 0 && f < 1 ? (float)f : 1;
    return isfinite(norm);
}

/* fp8 (docs/decisions/0022-products-in-fp8.md): the sizes that its GEMMs support. */
static inline bool mode__fp8_fits(int64_t m, int64_t n, int64_t k)
{
    return m % 16 == 0 && n % 16 == 0 && k % 16 == 0;
}

/* The largest s with amax * 2^s <= upper, clamped to +-100; 0 if amax is 0 or non-finite. */
static inline int mode__fp8_exponent(float amax, float upper)
{
    int e, top;
    if (!(amax > 0) || !isfinite(amax)) return 0;
    float f = frexpf(amax, &e), upper_f = frexpf(upper, &top);
    int s = top - e - (f > upper_f);
    return s > 100 ? 100 : s < -100 ? -100 : s;
}

/* Bytes of both fp8 operands, their scales and partial maxima. */
static inline int64_t mode__fp8_work(int64_t m, int64_t n, int64_t k)
{
    return (m + n) * k + 2 * (1024 * 4 + 3 * 256);
}

/* exact.c: exact comparison of centres, and the mean of the rows members[0..n-1] of x; sum [2, d] is scratch. */
enum { MODE__PIECE_ROWS = 256 }; /* rows of a partial sum */
double mode__exact_dot(const float *x, const float *y, int64_t d);
double mode__exact_cost(const float *x, const float *y, int64_t d, bool cosine);
float mode__exact_distance(double cost, bool cosine);
void mode__group_rows(int32_t *first, int32_t *members, const int32_t *id, int64_t n, int64_t k);
void mode__exact_mean(float *mean, double *sum, const float *x, const int32_t *members, int64_t n, int64_t d,
                      bool unit);

extern const struct mode_ops mode__ref_ops, mode__ref_bf16_ops, mode__ref_fp8_ops, mode__cpu_plain_ops;
#if defined(__x86_64__)
extern const struct mode_ops mode__cpu_avx2_ops, mode__cpu_avx512_ops, mode__cpu_amx_ops;
bool mode__cpu_amx_usable(void); /* cpu_amx.c; requests AMX tile state from the kernel */
#endif
#if defined(MODE_CUDA)
extern const struct mode_ops mode__cuda_ops, mode__cuda_tf32_ops, mode__cuda_bf16_ops, mode__cuda_fp8_ops;
extern const struct mode__device mode__cuda_device;
extern const struct mode__staging_kind mode__cuda_staging;
extern const struct mode__results_kind mode__cuda_results;
#endif

#endif
