#include "nn/cuda/fp8.h"

#include "nn/cuda/kernels.h"

#include <string.h>

enum { ALIGN = 256 };

enum mode_status mode__cuda_fp8_usable(const struct mode_backend *be, struct mode_error *err)
{
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) != cudaSuccess)
        return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda-fp8\": the GPU does not say what it can compute");
    if (10 * major + minor < 89)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "backend \"cuda-fp8\": this GPU has compute capability %d.%d, and products of 8-bit numbers "
                         "begin with 8.9. HINT: --backend cuda-bf16",
                         major, minor);
    if (!mode__cuda_products_by_lt(mode__cuda_of(be)->products))
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "backend \"cuda-fp8\": cuBLASLt, which computes products of 8-bit numbers, cannot be "
                         "loaded or started. HINT: --backend cuda-bf16");
    return MODE_OK;
}

static size_t padded(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* A quantised operand in the scratch: values, inverse scale, partial maxima. */
struct operand {
    uint8_t *numbers;
    float *back, *parts;
};

static struct operand place(char **at, int64_t n)
{
    struct operand o = {(uint8_t *)*at, NULL, NULL};
    *at += padded((size_t)n);
    o.back = (float *)(void *)*at;
    *at += ALIGN;
    o.parts = (float *)(void *)*at;
    *at += padded((size_t)mode__cuda_fp8_parts(n) * sizeof(float));
    return o;
}

static bool is_aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

static bool fits(const struct mode__product *x)
{
    return x->bf16 && x->c_bf16 && mode__fp8_fits(x->m, x->n, x->k) && is_aligned(x->a) && is_aligned(x->b) &&
           is_aligned(x->c) && (!x->add || is_aligned(x->add)) && (!x->bias || is_aligned(x->bias));
}

static bool made(struct mode_backend *be, const struct mode__product *x)
{
    cudaStream_t stream = mode__cuda_of(be)->stream;
    struct mode__product y = *x;
    if (!fits(x)) return false;
    const int64_t bytes = mode__fp8_work(x->m, x->n, x->k);
    char *work = mode__backend_work(be, (size_t)bytes), *at = work;
    struct operand a = place(&at, x->m * x->k), b = place(&at, x->n * x->k);
    MODE_ASSERT(at <= work + bytes);
    mode__cuda_fp8_largest(stream, a.parts, x->a, x->m * x->k);
    mode__cuda_fp8_largest(stream, b.parts, x->b, x->n * x->k);
    /* weights that are not transposed: the backward pass, so a is a gradient */
    mode__cuda_fp8_round(stream, a.numbers, a.back, a.parts, x->a, x->m * x->k, !x->b_transposed);
    if (x->b_transposed)
        mode__cuda_fp8_round(stream, b.numbers, b.back, b.parts, x->b, x->n * x->k, false);
    else
        mode__cuda_fp8_transpose(stream, b.numbers, b.back, b.parts, x->b, x->k, x->n);
    CUDA_OK(cudaGetLastError());
    y.a = a.numbers;
    y.b = b.numbers;
    y.b_transposed = true;
    y.fp8 = x->b_transposed ? MODE__FP8_E4M3 : MODE__FP8_E5M2;
    y.a_scale = a.back;
    y.b_scale = b.back;
    return mode__cuda_product_by_lt(be, &y);
}

bool mode__cuda_product_fp8(struct mode_backend *be, const struct mode__product *x)
{
    bool done = made(be, x);
    (*(done ? &be->narrow.made : &be->narrow.left))++;
    return done;
}

void mode__cuda_fp8_note(const struct mode_backend *be, FILE *out)
{
    if (be->narrow.made + be->narrow.left == 0) return;
    fprintf(out,
            "%lld of %lld products were made in fp8; the others stayed in bf16: their dimensions are not multiples of "
            "16, or cuBLASLt refused them\n",
            (long long)be->narrow.made, (long long)(be->narrow.made + be->narrow.left));
}
