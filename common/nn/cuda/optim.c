#include "nn/cuda/optim.h"

#include "nn/cuda/device.h"
#include "nn/cuda/kernels.h"

_Static_assert(sizeof(struct mode__cuda_pieces) <= 4000, "a kernel takes 4 KiB of arguments");

/* The next parameters from *i on, as many as one launch takes. */
static struct mode__cuda_pieces next_pieces(struct mode_param *p, size_t n, size_t *i)
{
    struct mode__cuda_pieces all = {0};
    for (; *i < n && all.n < MODE__PIECES; ++*i) {
        struct mode_param *x = &p[*i];
        struct mode_tensor *copy = mode_param_copy(x);
        int64_t count = mode_tensor_count(&x->grad);
        if (x->frozen || count == 0) continue;
        mode__cuda_add_piece(&all, (struct mode__cuda_piece){.w = mode_f32(&x->value),
                                                             .m = mode_f32(&x->m),
                                                             .v = mode_f32(&x->v),
                                                             .g = mode_f32(&x->grad),
                                                             .copy = copy ? copy->data : NULL,
                                                             .n = count,
                                                             .decay = x->decay});
    }
    return all;
}

void mode__cuda_op_adamw(struct mode_backend *be, struct mode_param *p, size_t n, const struct mode_adamw_step *s)
{
    const struct mode_adamw_step *here = mode__cuda_shared(be, s);
    MODE_ASSERT(here);
    for (size_t i = 0; i < n;) {
        struct mode__cuda_pieces all = next_pieces(p, n, &i);
        if (all.n > 0) mode__cuda_adamw(mode__cuda_of(be)->stream, &all, here);
    }
    CUDA_OK(cudaGetLastError());
}

void mode__cuda_op_grad_squares(struct mode_backend *be, double *sum, const struct mode_param *p, size_t n)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    int64_t parts = 0, done = 0;
    for (size_t i = 0; i < n; i++)
        if (!p[i].frozen) parts += mode__cuda_square_parts(mode_tensor_count(&p[i].grad));
    double *part = mode__backend_work(be, (size_t)(parts + 1) * sizeof *part), *here = mode__cuda_shared(be, sum);
    for (size_t i = 0; i < n;) {
        struct mode__cuda_pieces all = next_pieces((struct mode_param *)(uintptr_t)p, n, &i);
        if (all.n == 0) continue;
        mode__cuda_squares(stream, part + done, &all);
        done += all.blocks;
    }
    mode__cuda_add_up(stream, here ? here : sum, part, done);
    CUDA_OK(cudaGetLastError());
}

void mode__cuda_op_rounded(struct mode_backend *be, struct mode_tensor *copy, const struct mode_tensor *x)
{
    int64_t n = mode_tensor_count(x);
    if (n > 0) mode__cuda_rounded(mode__cuda_of(be)->stream, copy->data, mode_f32(x), n);
    CUDA_OK(cudaGetLastError());
}

void mode__cuda_op_clamp(struct mode_backend *be, struct mode_tensor *x, float low, float high)
{
    int64_t n = mode_tensor_count(x);
    if (n > 0) mode__cuda_clamp(mode__cuda_of(be)->stream, mode_f32(x), low, high, n);
    CUDA_OK(cudaGetLastError());
}
