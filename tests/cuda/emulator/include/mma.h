/* mma.h - nvcuda::wmma on the host: a fragment's elements are dealt to the lanes in the order of the matrix, which no
 * program may rely on. All lanes of a warp take part in every call; products are summed in f32. */
#ifndef MODE_EMULATOR_MMA_H
#define MODE_EMULATOR_MMA_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K> struct extent; /* rows, columns */
template <int M, int N, int K> struct extent<matrix_a, M, N, K> {
    enum { rows = M, columns = K };
};
template <int M, int N, int K> struct extent<matrix_b, M, N, K> {
    enum { rows = K, columns = N };
};
template <int M, int N, int K> struct extent<accumulator, M, N, K> {
    enum { rows = M, columns = N };
};

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    static_assert(M * N == 256 && K == 16, "16x16x16, 32x8x16 and 8x32x16 are the shapes of 16-bit numbers");
    enum { rows = extent<Use, M, N, K>::rows, columns = extent<Use, M, N, K>::columns };
    enum : int { num_elements = rows * columns / 32 };
    using element_type = T;
    T x[num_elements];
};

struct nothing {
    static void work(void *const[32], unsigned present)
    {
        if (present != 0xffffffffu) mode_emu::fault("a matrix operation needs all 32 lanes; present: %08x", present);
    }
};

static inline void converge(const char *what)
{
    mode_emu::meet_warp({what, "mma.h", 0}, 0xffffffffu, nullptr, nothing::work);
}

static inline void check_leading(unsigned ld, size_t size, const void *p)
{
    if (ld * size % 16) mode_emu::fault("a leading dimension of %u elements is not a multiple of 16 bytes", ld);
    if ((uintptr_t)p % 32) mode_emu::fault("a matrix at %p is not aligned to 32 bytes", p);
}

template <typename F, typename T> void load(F &f, const T *p, unsigned ld, bool by_rows)
{
    check_leading(ld, sizeof(T), p);
    converge("load_matrix_sync");
    for (int e = 0; e < F::num_elements; e++) {
        int i = mode_emu::self->lane * F::num_elements + e, row = i / F::columns, column = i % F::columns;
        f.x[e] = by_rows ? p[row * (long)ld + column] : p[column * (long)ld + row];
    }
}
template <typename Use, int M, int N, int K, typename T>
void load_matrix_sync(fragment<Use, M, N, K, T, row_major> &f, const T *p, unsigned ld)
{
    load(f, p, ld, true);
}
template <typename Use, int M, int N, int K, typename T>
void load_matrix_sync(fragment<Use, M, N, K, T, col_major> &f, const T *p, unsigned ld)
{
    load(f, p, ld, false);
}
template <int M, int N, int K, typename T>
void load_matrix_sync(fragment<accumulator, M, N, K, T> &f, const T *p, unsigned ld, layout_t layout)
{
    load(f, p, ld, layout == mem_row_major);
}

template <int M, int N, int K, typename T>
void store_matrix_sync(T *p, const fragment<accumulator, M, N, K, T> &f, unsigned ld, layout_t layout)
{
    using F = fragment<accumulator, M, N, K, T>;
    check_leading(ld, sizeof(T), p);
    converge("store_matrix_sync");
    for (int e = 0; e < F::num_elements; e++) {
        int i = mode_emu::self->lane * F::num_elements + e, row = i / F::columns, column = i % F::columns;
        (layout == mem_row_major ? p[row * (long)ld + column] : p[column * (long)ld + row]) = f.x[e];
    }
}

template <typename Use, int M, int N, int K, typename T, typename Layout, typename V>
void fill_fragment(fragment<Use, M, N, K, T, Layout> &f, V value)
{
    converge("fill_fragment");
    for (T &x : f.x) x = (T)value;
}

template <typename D, typename A, typename B, typename C> struct product {
    D *d;
    const A *a;
    const B *b;
    const C *c;
    static void work(void *const payload[32], unsigned present)
    {
        nothing::work(payload, present);
        const int m = D::rows, n = D::columns, k = A::columns;
        float a_all[A::rows * A::columns], b_all[B::rows * B::columns], d_all[D::rows * D::columns];
        for (int lane = 0; lane < 32; lane++) {
            const product &p = *(const product *)payload[lane];
            for (int e = 0; e < A::num_elements; e++) a_all[lane * A::num_elements + e] = (float)p.a->x[e];
            for (int e = 0; e < B::num_elements; e++) b_all[lane * B::num_elements + e] = (float)p.b->x[e];
            for (int e = 0; e < C::num_elements; e++) d_all[lane * C::num_elements + e] = (float)p.c->x[e];
        }
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                float s = 0;
                for (int l = 0; l < k; l++) s += a_all[i * k + l] * b_all[l * n + j];
                d_all[i * n + j] += s;
            }
        for (int lane = 0; lane < 32; lane++)
            for (int e = 0; e < D::num_elements; e++)
                ((product *)payload[lane])->d->x[e] = d_all[lane * D::num_elements + e];
    }
};

/* d = a b + c; d may be c */
template <int M, int N, int K, typename T, typename LA, typename LB, typename TD, typename TC>
void mma_sync(fragment<accumulator, M, N, K, TD> &d, const fragment<matrix_a, M, N, K, T, LA> &a,
              const fragment<matrix_b, M, N, K, T, LB> &b, const fragment<accumulator, M, N, K, TC> &c)
{
    using P = product<fragment<accumulator, M, N, K, TD>, fragment<matrix_a, M, N, K, T, LA>,
                      fragment<matrix_b, M, N, K, T, LB>, fragment<accumulator, M, N, K, TC>>;
    P p = {&d, &a, &b, &c};
    mode_emu::meet_warp({"mma_sync", "mma.h", 0}, 0xffffffffu, &p, P::work);
}

} // namespace wmma
} // namespace nvcuda

#endif
