/* lt.cpp - cuBLASLt's matmul in plain loops, from the caller's descriptors.
 *
 * Strict where the library may be lenient: shapes, leading dimensions, types, attribute sizes, and that pointers have
 * the alignment that the heuristic was given. FP8 operands as on Hopper: both K-major (TN), sizes multiples of 16, at
 * least one of the two E4M3. Sums have the errors of sums.h, of fp16 (into f32 only) the largest that a tensor core may
 * make. Two streams that use one workspace at the same time are found. Algorithm 0 sums k in order; 1 is split-K in two
 * parts, added in the workspace; 2, named first where the caller allows in-place reduction, alternates between the two
 * from call to call (non-deterministic); there are no others. Leading dimensions that are no multiple of 4 bytes are
 * refused, so that callers' fallbacks run. */
#include "emulator.h"
#include "sums.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

struct mode_emu_lt {
    int unused;
};
struct mode_emu_lt_desc {
    cublasComputeType_t compute;
    cublasOperation_t ta, tb;
    cublasLtEpilogue_t epilogue;
    const void *bias, *scale_a, *scale_b;
};
struct mode_emu_lt_layout {
    cudaDataType type;
    long long rows, cols, ld;
    cublasLtOrder_t order;
};
struct mode_emu_lt_preference {
    uint64_t workspace;
    uint32_t sums, aligned[4];
};

namespace {

bool is_fp8(cudaDataType type)
{
    return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2;
}

size_t size_of(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : is_fp8(type) ? 1 : 2;
}

float get(const void *x, const mode_emu_lt_layout &l, long long row, long long col)
{
    long long i = l.order == CUBLASLT_ORDER_COL ? row + col * l.ld : row * l.ld + col;
    if (is_fp8(l.type))
        return mode_emu_fp8(((const __nv_fp8_storage_t *)x)[i], l.type == CUDA_R_8F_E4M3 ? __NV_E4M3 : __NV_E5M2);
    if (l.type == CUDA_R_16F) return __half2float(((const __half *)x)[i]);
    return l.type == CUDA_R_32F ? ((const float *)x)[i] : __bfloat162float(((const __nv_bfloat16 *)x)[i]);
}

void put(void *x, const mode_emu_lt_layout &l, long long row, long long col, double v)
{
    long long i = l.order == CUBLASLT_ORDER_COL ? row + col * l.ld : row * l.ld + col;
    if (l.type == CUDA_R_32F)
        ((float *)x)[i] = (float)v;
    else
        ((__nv_bfloat16 *)x)[i] = __float2bfloat16((float)v);
}

float tf32(float x)
{
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    return __uint_as_float(bits);
}

/* A sum as a tensor core may compute it: each addend truncated to 23 bits below the leading bit of the largest, and the
 * result to f32. */
float cut_sum(const double *x, int n)
{
    double most = 0, s = 0;
    for (int i = 0; i < n; i++) most = std::max(most, std::fabs(x[i]));
    if (most == 0) return 0;
    const double unit = std::ldexp(1.0, std::ilogb(most) - 23);
    for (int i = 0; i < n; i++) s += std::trunc(x[i] / unit) * unit;
    return mode_emu::cut_to_f32(s);
}

bool fits(const mode_emu_lt_layout &l)
{
    return (l.type == CUDA_R_32F || l.type == CUDA_R_16BF || l.type == CUDA_R_16F || is_fp8(l.type)) && l.rows > 0 && l.cols > 0 &&
           l.ld >= (l.order == CUBLASLT_ORDER_COL ? l.rows : l.cols);
}

/* d [m, n] = op(a) [m, k] op(b) [k, n] + c */
cublasStatus_t check(const mode_emu_lt_desc &w, const mode_emu_lt_layout &a, const mode_emu_lt_layout &b,
                     const mode_emu_lt_layout &c, const mode_emu_lt_layout &d)
{
    long long m = w.ta ? a.cols : a.rows, k = w.ta ? a.rows : a.cols, k2 = w.tb ? b.cols : b.rows;
    long long n = w.tb ? b.rows : b.cols;
    if (!fits(a) || !fits(b) || !fits(c) || !fits(d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (k != k2 || d.rows != m || d.cols != n || c.rows != m || c.cols != n) return CUBLAS_STATUS_INVALID_VALUE;
    if (is_fp8(a.type) || is_fp8(b.type)) {
        if (!is_fp8(a.type) || !is_fp8(b.type) || (a.type == CUDA_R_8F_E5M2 && b.type == CUDA_R_8F_E5M2) ||
            w.compute != CUBLAS_COMPUTE_32F || w.ta != CUBLAS_OP_T || w.tb != CUBLAS_OP_N || c.type != d.type ||
            is_fp8(d.type))
            return CUBLAS_STATUS_NOT_SUPPORTED;
        return m % 16 || n % 16 || k % 16 || a.ld % 16 || b.ld % 16 ? CUBLAS_STATUS_NOT_SUPPORTED
                                                                   : CUBLAS_STATUS_SUCCESS;
    }
    if (w.scale_a || w.scale_b) return CUBLAS_STATUS_INVALID_VALUE;
    if (a.type != b.type || c.type != d.type || d.type == CUDA_R_16F || (d.type == CUDA_R_16BF && a.type != CUDA_R_16BF) ||
        (w.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (const auto *l : {&a, &b, &d})
        if (l->ld * size_of(l->type) % 4) return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> cublasStatus_t set(T *to, const void *value, size_t bytes)
{
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

void describe(cublasLtMatmulHeuristicResult_t *r, int number, const mode_emu_lt_preference *preference)
{
    memset(r, 0, sizeof *r);
    r->state = CUBLAS_STATUS_SUCCESS;
    r->workspaceSize = number ? 4096 : 0;
    r->algo.data[0] = 0x6c74u;
    r->algo.data[1] = (uint64_t)number;
    for (int i = 0; i < 4; i++) r->algo.data[2 + i] = preference ? preference->aligned[i] : 1;
}

/* MODE_EMULATOR_PRODUCTS=off: one element of each result is wrong */
const bool is_off = getenv("MODE_EMULATOR_PRODUCTS") && !strcmp(getenv("MODE_EMULATOR_PRODUCTS"), "off");

struct matmul {
    mode_emu_lt_desc w;
    mode_emu_lt_layout al, bl, cl, dl;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    bool parts;

    /* An operand as rows of k elements. */
    static std::vector<float> rows_of(const void *x, const mode_emu_lt_layout &l, bool transposed, bool rounded)
    {
        const long long m = transposed ? l.cols : l.rows, k = transposed ? l.rows : l.cols;
        std::vector<float> to((size_t)(m * k));
        for (long long i = 0; i < m; i++)
            for (long long p = 0; p < k; p++) to[(size_t)(i * k + p)] = transposed ? get(x, l, p, i) : get(x, l, i, p);
        for (float &v : to) v = rounded ? tf32(v) : v;
        return to;
    }
    /* Dot products of x with COLUMNS columns of y, over k */
    void sums(float s[mode_emu::COLUMNS], const float *x, const float *y, long long k) const
    {
        using namespace mode_emu;
        enum { AT_A_TIME = 16 };
        if (al.type == CUDA_R_32F && w.compute != CUBLAS_COMPUTE_32F_FAST_TF32) {
            sums_in_f32(s, x, y, k);
        } else if (al.type != CUDA_R_16F) {
            sums_by_tensor_core(s, x, y, k, AT_A_TIME);
        } else {
            for (int c = 0; c < COLUMNS; c++) {
                s[c] = 0;
                for (long long p = 0; p < k; p += AT_A_TIME) {
                    double addends[AT_A_TIME + 1] = {s[c]};
                    int n = 1;
                    for (long long q = p; q < std::min(k, p + AT_A_TIME); q++)
                        addends[n++] = (double)x[q] * y[q * COLUMNS + c];
                    s[c] = cut_sum(addends, n);
                }
            }
        }
    }
    void run() const
    {
        const bool tf = w.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
        const std::vector<float> of_a = rows_of(a, al, w.ta, tf), of_b = rows_of(b, bl, !w.tb, tf);
        const long long k = w.ta ? al.rows : al.cols, half = parts ? k / 2 : k, at_once = mode_emu::COLUMNS;
        std::vector<float> columns((size_t)(k * at_once));
        for (long long j = 0; j < dl.cols; j += at_once) {
            const long long n = std::min(dl.cols - j, at_once);
            mode_emu::side_by_side(columns.data(), of_b.data() + j * k, k, n);
            for (long long i = 0; i < dl.rows; i++) {
                const float *x = of_a.data() + i * k;
                float first[mode_emu::COLUMNS], second[mode_emu::COLUMNS] = {};
                sums(first, x, columns.data(), half);
                if (parts) sums(second, x + half, columns.data() + half * at_once, k - half);
                for (long long of = 0; of < n; of++) finish(i, j + of, parts ? first[of] + second[of] : first[of]);
            }
        }
    }
    void finish(long long i, long long j, double s) const
    {
        s *= alpha;
        if (w.scale_a) s *= *(const float *)w.scale_a;
        if (w.scale_b) s *= *(const float *)w.scale_b;
        if (beta != 0) s += (double)beta * get(c, cl, i, j); /* beta 0: c is not read */
        if (w.epilogue == CUBLASLT_EPILOGUE_BIAS)
            s += dl.type == CUDA_R_32F ? ((const float *)w.bias)[i]
                                       : __bfloat162float(((const __nv_bfloat16 *)w.bias)[i]);
        put(d, dl, i, j, is_off && i == 0 && j == 0 ? 2 * s : s);
    }
};

} // namespace

extern "C" {

size_t cublasLtGetVersion(void)
{
    return 130000;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = new mode_emu_lt();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType scale)
{
    if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new mode_emu_lt_desc{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&desc->ta, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&desc->tb, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return set(&desc->scale_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return set(&desc->scale_b, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    *layout = new mode_emu_lt_layout{type, (long long)rows, (long long)cols, ld, CUBLASLT_ORDER_COL};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes)
{
    return attribute == CUBLASLT_MATRIX_LAYOUT_ORDER ? set(&layout->order, value, bytes) : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new mode_emu_lt_preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(&preference->sums, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(&preference->aligned[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(&preference->aligned[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(&preference->aligned[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(&preference->aligned[3], value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t *results, int *n)
{
    cublasStatus_t st = check(*desc, *a, *b, *c, *d);
    *n = 0;
    if (st) return st;
    if (*n < most && preference->sums & CUBLASLT_REDUCTION_SCHEME_INPLACE) describe(&results[(*n)++], 2, preference);
    if (*n < most) describe(&results[(*n)++], 0, preference);
    if (*n < most && preference->workspace >= 4096 && preference->sums & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        describe(&results[(*n)++], 1, preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result)
{
    cublasStatus_t st = check(*desc, *a, *b, *c, *d);
    if (st || algo->data[0] != 0x6c74u) return st ? st : CUBLAS_STATUS_INVALID_VALUE;
    describe(result, (int)algo->data[1], nullptr);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    const void *const at[] = {a, b, c, d, desc->bias, desc->scale_a, desc->scale_b};
    cublasStatus_t st = check(*desc, *a_layout, *b_layout, *c_layout, *d_layout);
    if (st) return st;
    if (!algo || algo->data[0] != 0x6c74u || algo->data[1] > 2) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)at[i] % algo->data[2 + i]) return CUBLAS_STATUS_INVALID_VALUE;
    if (algo->data[1] == 1 && (!workspace || workspace_bytes < 4096)) return CUBLAS_STATUS_INVALID_VALUE;
    if ((desc->epilogue == CUBLASLT_EPILOGUE_BIAS) != (desc->bias != nullptr)) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 4 && is_fp8(a_layout->type); i++)
        if ((uintptr_t)at[i] % 16) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 7; i++) mode_emu::check_argument("cublasLtMatmul", i + 1, at[i]);
    if (workspace) mode_emu::check_argument("cublasLtMatmul", 8, workspace);
    if ((uintptr_t)workspace % 256) return CUBLAS_STATUS_INVALID_VALUE;
    static std::atomic<uint64_t> last;
    const uint64_t mine = ++last;
    static std::set<const void *> loaded; /* by what selects a kernel: types, transposes, algorithm, bias */
    uintptr_t which = (uintptr_t)a_layout->type;
    for (uintptr_t x : {(uintptr_t)b_layout->type, (uintptr_t)d_layout->type, (uintptr_t)desc->ta, (uintptr_t)desc->tb,
                        (uintptr_t)algo->data[1], (uintptr_t)(desc->bias != nullptr)})
        which = which * 64 + x;
    mode_emu::must_be_loaded(loaded, (const void *)which, "a product of cuBLASLt", stream);
    matmul p = {*desc,
                 *a_layout,
                 *b_layout,
                 *c_layout,
                 *d_layout,
                 a,
                 b,
                 c,
                 d,
                 *(const float *)alpha,
                 *(const float *)beta,
                 algo->data[1] == 1 || (algo->data[1] == 2 && mine % 2)};
    /* a matmul may keep data in its workspace from one of its kernels to the next */
    uint64_t *mark = workspace_bytes >= sizeof *mark ? (uint64_t *)workspace : nullptr;
    if (mark) mode_emu::enqueue(stream, [mark, mine] { *mark = mine; });
    mode_emu::enqueue(stream, [p, mark, mine] {
        if (mark && *mark != mine) {
            fprintf(stderr, "emulator: two streams' products use one workspace at a time\n");
            abort();
        }
        p.run();
    });
    return mode_emu::fault() == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
