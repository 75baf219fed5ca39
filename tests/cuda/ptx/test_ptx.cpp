/* test_ptx.cpp - the interpreter of PTX: results of test_ptx.ptx, and mistakes that it has to find. The functions here
 * stand for the kernels of that file; they never run. */
#include "../emulator/mistakes.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static __global__ void integers(uint32_t *, const uint32_t *, const uint32_t *)
{
    abort();
}
static __global__ void floats(float *, const float *, const float *)
{
    abort();
}
static __global__ void sum(float *, const float *)
{
    abort();
}
static __global__ void mistake(float *, const float *, int)
{
    abort();
}

enum { LANES = 32 };

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static std::vector<void *> taken; /* on the device, by a check */

static void free_all()
{
    for (void *p : taken) CHECK(cudaFree(p) == cudaSuccess);
    taken.clear();
}

template <typename T> static T *on_device(const std::vector<T> &from)
{
    T *p;
    CHECK(cudaMalloc((void **)&p, from.size() * sizeof(T)) == cudaSuccess);
    taken.push_back(p);
    CHECK(cudaMemcpy(p, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
    return p;
}

template <typename T> static std::vector<T> on_host(const T *from, size_t n)
{
    std::vector<T> to(n);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(cudaMemcpy(to.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return to;
}

/* Row `op` of what the kernel stored is `expected`. */
template <typename T>
static void expect(const char *op, const std::vector<T> &all, int row, const std::vector<T> &expected)
{
    for (size_t i = 0; i < expected.size(); i++) {
        const T x = all[(size_t)(row * LANES) + i];
        if (memcmp(&x, &expected[i], sizeof x) == 0 || (x != x && expected[i] != expected[i])) continue;
        fprintf(stderr, "%s, lane %zu: expected %g (%08x), got %g (%08x)\n", op, i, (double)expected[i],
                sizeof(T) == 4 ? bits_of((float)expected[i]) : 0, (double)x, bits_of((float)x));
        exit(1);
    }
}

static void check_integers()
{
    std::vector<uint32_t> a(LANES), b(LANES);
    const uint32_t x[] = {0x80000001, 0x12345678, 0xffffffff, 8}, y[] = {31, 40, 4, 0x9abcdef0};
    for (int i = 0; i < LANES; i++) a[(size_t)i] = x[i % 4], b[(size_t)i] = y[i % 4];
    uint32_t *to = on_device(std::vector<uint32_t>(8 * LANES));
    MODE_EMU_KERNEL(integers)(1, LANES, 0, nullptr)(to, on_device(a), on_device(b));
    const std::vector<uint32_t> all = on_host(to, 8 * LANES);
    expect<uint32_t>("shr.s32", all, 0, {0xffffffff, 0, 0xffffffff, 0});
    expect<uint32_t>("shl.b32", all, 1, {0x80000000, 0, 0xfffffff0, 0});
    expect<uint32_t>("bfi.b32", all, 2, {0xf0000001, 0x82345678, 0x4fffffff, 8});
    /* selectors 5, 3, 1 and 9: of which the last repeats byte 1's sign */
    expect<uint32_t>("prmt.b32", all, 3, {0x00008000, 0x00561200, 0xffffff00, 0x000000de});
    expect<uint32_t>("ffs", all, 4, {0, 3, 0, 3}); /* the lowest bit's position */
    expect<uint32_t>("mul.hi.s32", all, 5, {0xfffffff0, 2, 0xffffffff, 0xfffffffc});
    expect<uint32_t>("cvt.s64.s32", all, 6, {0, 0, 0, 0xffffffff});
    expect<uint32_t>("setp.lt.s16", all, 7, {0, 0, 1, 0});
}

static void check_floats()
{
    const float nan = NAN, inf = INFINITY;
    std::vector<float> a(LANES), b(LANES);
    const float x[] = {1, nan, -0.0f, 3e38f, 1.00390625f, 65520}, y[] = {2, 5, 0.0f, -inf, 0x1p-24f, 0.4375f};
    for (int i = 0; i < LANES; i++) a[(size_t)i] = x[i % 6], b[(size_t)i] = y[i % 6];
    float *to = on_device(std::vector<float>(8 * LANES));
    MODE_EMU_KERNEL(floats)(1, LANES, 0, nullptr)(to, on_device(a), on_device(b));
    const std::vector<float> all = on_host(to, 8 * LANES);
    expect<float>("min.f32", all, 0, {1, 5, -0.0f, -inf, 0x1p-24f, 0.4375f});
    expect<float>("max.f32", all, 1, {2, 5, 0.0f, 3e38f, 1.00390625f, 65520});
    expect<float>("fma.rm.f32", all, 2, {3, nan, 1, -inf, 1, 28666});
    expect<float>("cvt.sat", all, 3, {1, 0, 0, 1, 1, 1});
    expect<float>("cvt.rn.bf16x2, low half", all, 4, {2, 5, 0.0f, -inf, 0x1p-24f, 0.4375f});
    expect<float>("setp.leu.f32", all, 5, {1, 1, 1, 0, 0, 0});
    expect<float>("cvt.rn.f16", all, 6, {1, nan, -0.0f, inf, 1.00390625f, inf});
    /* the first operand is the upper byte */
    expect<float>("cvt.rn.satfinite.e4m3x2", all, 7, {0x3840, 0x7f4a, 0x8000, 0x7efe, 0x3800, 0x7e2e});
}

static void check_sums()
{
    std::vector<float> from(3 * 96);
    for (size_t i = 0; i < from.size(); i++) from[i] = (float)(i % 7) - 2;
    float expected[3] = {0, 0, 0};
    for (size_t i = 0; i < from.size(); i++) expected[i / 96] += from[i];
    float *to = on_device(std::vector<float>(3));
    for (int again = 0; again < 20; again++) { /* each time in another order */
        MODE_EMU_KERNEL(sum)(3, 96, 0, nullptr)(to, on_device(from));
        CHECK(memcmp(on_host(to, 3).data(), expected, sizeof expected) == 0);
    }
}

static std::vector<float> make_mistake(int which)
{
    std::vector<float> from(LANES, 1);
    float *to = on_device(std::vector<float>(LANES));
    MODE_EMU_KERNEL(mistake)(1, LANES, 512, nullptr)(to, on_device(from), which);
    return on_host(to, LANES);
}

template <int Which> static void mistake_of_kernel()
{
    make_mistake(Which);
}

static void too_many_threads()
{
    MODE_EMU_KERNEL(sum)(1, 160, 0, nullptr)(on_device(std::vector<float>(1)), on_device(std::vector<float>(160)));
}

static const struct mistake mistakes[] = {
    {"a store behind the end of an allocation", mistake_of_kernel<0>, "in no allocation of the device"},
    {"a vector store that is not aligned", mistake_of_kernel<1>, "which is misaligned"},
    {"a barrier in divergent code", mistake_of_kernel<2>, "deadlock"},
    {"a shuffle from a lane that is not in the mask", mistake_of_kernel<3>,
     "reads from lane 20, which does not take part"},
    {"a read behind the end of shared memory", mistake_of_kernel<4>, "of shared memory, of which there are"},
    {"an end with a copy under way", mistake_of_kernel<5>, "copies are under way"},
    {"a barrier that was not initialised", mistake_of_kernel<6>, "that was not initialised"},
    {"more threads than the kernel allows", too_many_threads, "160 threads per block, at most 128"},
};

int missed_races(); /* test_races.cpp */

int main()
{
    check_integers();
    check_floats();
    check_sums();
    free_all();
    const std::vector<float> early = make_mistake(7);
    CHECK(early[0] != early[0] && early[1] == 1); /* NaN before the copy is waited for */
    free_all();
    return missed(mistakes, sizeof mistakes / sizeof *mistakes) + missed_races() > 0;
}
