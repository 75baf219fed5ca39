/* hopper.cpp - what compute capability 9.0 adds: mbarriers that count bytes, bulk copies, warpgroup matrix
 * multiplication (wgmma).
 *
 * DESIGN: mistakes must show, so everything asynchronous happens at the worst allowed time. A bulk copy fills its
 * destination with NaN at once, and completes only when a thread must wait at its barrier: a thread that reads too
 * early finds NaN, and so does one that had not finished reading. A wgmma is computed, warp by warp, when it is waited
 * for, from what its operands hold then; until then its registers are NaN. Operand addresses follow PTX: the fields of
 * the descriptor, with the 128-byte swizzle (address bits 4 to 6 xor bits 7 to 9). MODE_EMULATOR_PRODUCTS=wrong: no
 * swizzle, as if the hardware's layout were another. */
#include "emulator.h"

#include <cuda_fp16.h>
#include <nn/cuda/hopper.cuh>

#include <cstdlib>
#include <vector>

namespace mode_emu
{

/* ---- barriers and copies ---- */

struct byte_barrier {
    uint64_t *at;
    uint32_t expected, pending, phase;
    int64_t bytes; /* still expected */
    int block;
    bool known; /* fenced: visible to copies and to other blocks */
};
struct bulk {
    void *to;
    const void *from;
    size_t bytes;
    uint64_t *barrier;
};
static std::vector<byte_barrier> barriers;
static std::vector<bulk> under_way;

enum : uint64_t { TAG = 0x6d62617272000000u }; /* a barrier's memory holds this plus its number */

static byte_barrier *barrier_at(const void *p)
{
    const uint64_t number = *(const uint64_t *)p - TAG;
    if (number >= barriers.size() || barriers[number].at != p) fault("there is no barrier at %p", p);
    return &barriers[number];
}

static void try_phase(byte_barrier *b)
{
    if (b->pending > 0 || b->bytes != 0) return;
    b->phase++;
    b->pending = b->expected;
    wake(b->at);
}

static void arrive(byte_barrier *b)
{
    if (b->pending == 0) fault("a barrier of %u arrivals gets one more", b->expected);
    b->pending--;
    try_phase(b);
}

void barrier_made(void *p, uint32_t arrivals)
{
    (void)shared_offset(p);
    if ((uintptr_t)p % 8) fault("a barrier at %p is not aligned to 8 bytes", p);
    if (arrivals == 0 || arrivals >= 1u << 20) fault("a barrier of %u arrivals", arrivals);
    *(uint64_t *)p = TAG + barriers.size();
    barriers.push_back({(uint64_t *)p, arrivals, arrivals, 0, 0, self->rank, false});
}

void barriers_fenced()
{
    for (byte_barrier &b : barriers) b.known |= b.block == self->rank;
}

static void must_be_known(const byte_barrier *b)
{
    if (!b->known) fault("a barrier is used from outside of its block before fence_barrier_init");
}

void barrier_expects(void *p, uint32_t bytes)
{
    byte_barrier *b = barrier_at(p);
    b->bytes += bytes;
    arrive(b);
}

void barrier_arrived(void *p, uint32_t block)
{
    byte_barrier *b = barrier_at(shared_at(shared_offset(p), (int)block));
    must_be_known(b);
    arrive(b);
}

/* Completes the copies of one barrier, or (NULL) of every barrier that a thread waits at. Did any complete? */
static bool deliver(const void *barrier)
{
    bool any = false;
    for (size_t i = 0; i < under_way.size();) {
        const bulk c = under_way[i];
        if (barrier ? c.barrier != barrier : !is_slept_for(c.barrier)) {
            i++;
            continue;
        }
        under_way.erase(under_way.begin() + (long)i);
        memcpy(c.to, c.from, c.bytes);
        byte_barrier *b = barrier_at(c.barrier);
        b->bytes -= (int64_t)c.bytes;
        try_phase(b);
        any = true;
    }
    return any;
}

void deliver_late()
{
    (void)deliver(nullptr);
}

void barrier_wait(const place &at, void *p, uint32_t parity)
{
    while ((barrier_at(p)->phase & 1) == (parity & 1))
        if (!deliver(p)) sleep_for(at, p);
}

void copy_in_bulk(void *to, const void *from, uint32_t bytes, void *barrier, uint16_t blocks)
{
    if (bytes == 0 || (bytes | (uintptr_t)to | (uintptr_t)from) % 16)
        fault("a bulk copy of %u bytes from %p to %p is not of whole 16 aligned bytes", bytes, from, to);
    if (blocks == 0) fault("a bulk copy to no block");
    for (int i = 0; i < 16; i++) {
        if (!(blocks >> i & 1)) continue;
        void *there = shared_at(shared_offset(to), i);
        uint64_t *b = (uint64_t *)shared_at(shared_offset(barrier), i);
        must_be_known(barrier_at(b));
        memset(there, POISON, bytes);
        under_way.push_back({there, from, bytes, b});
    }
}

/* ---- wgmma ---- */

enum { ROWS = 16, COLUMNS = 256, DEPTH = 16, MOST_WARPS = 32 }; /* rows and columns of c per warp, k of one wgmma */

struct wgmma {
    uint64_t a, b;
    bool add;
    int group; /* commits before it: its wgmma group */
};
struct warp_wgmmas {
    std::vector<wgmma> pending;
    float c[ROWS][COLUMNS];
    float *lane_c[32];
    bool live, fenced;
    int commits;
    size_t begun; /* of the operations of its warpgroup */
};
static warp_wgmmas of_warp[MOST_WARPS];
static std::vector<wgmma> of_group[MOST_WARPS / 4];

static uint64_t skew = 0x9e3779b97f4a7c15u; /* which warp of a warpgroup runs ahead */
static float widened[0x10000];
static const bool is_wrong = getenv("MODE_EMULATOR_PRODUCTS") && !strcmp(getenv("MODE_EMULATOR_PRODUCTS"), "wrong");

/* The warp's number in the cluster. */
static int warp_number()
{
    const dim3 n = block_size;
    const uint3 t = self->thread;
    return (int)((unsigned)self->rank * (n.x * n.y * n.z) + (t.z * n.y + t.y) * n.x + t.x) / 32;
}

/* Elements 0 .. 15 of row r of a tile. */
static void decode(float *to, size_t stride, uint64_t operand, int r)
{
    const uint32_t start = (uint32_t)(operand & 0x3fff) << 4, eight_rows = (uint32_t)(operand >> 32 & 0x3fff) << 4;
    for (int k = 0; k < DEPTH; k++) {
        uint32_t at = start + (uint32_t)(r / 8) * eight_rows + (uint32_t)(r % 8) * 128 + (uint32_t)k * 2;
        if (!is_wrong) at ^= (at >> 7 & 7) << 4;
        to[(size_t)k * stride] = widened[*(const uint16_t *)shared_at(at, self->rank)];
    }
}

/* c + a b as a tensor core may compute it: each addend truncated to 23 bits below the leading bit of the largest, and
 * the result truncated to f32. */
static void add_up(float *c, const float *a, const float (*b)[COLUMNS], int columns)
{
    float p[DEPTH][COLUMNS];
    uint32_t most[COLUMNS];
    for (int j = 0; j < columns; j++) most[j] = __float_as_uint(c[j]) & 0x7fffffffu;
    for (int k = 0; k < DEPTH; k++)
        for (int j = 0; j < columns; j++) {
            p[k][j] = a[k] * b[k][j]; /* exact */
            const uint32_t size = __float_as_uint(p[k][j]) & 0x7fffffffu;
            most[j] = size > most[j] ? size : most[j];
        }
    for (int j = 0; j < columns; j++) {
        const uint32_t e = most[j] >> 23;
        if (e < 24) continue; /* all are 0: nonzero products of fp16 are 2^-48 or more */
        if (e > 250) {        /* overflow, or non-finite */
            c[j] = __builtin_nanf("");
            continue;
        }
        const float up = __uint_as_float((277 - e) << 23), unit = __uint_as_float((e - 23) << 23);
        int32_t s = (int32_t)(c[j] * up);
        for (int k = 0; k < DEPTH; k++) s += (int32_t)(p[k][j] * up);
        const uint32_t size = (uint32_t)abs(s);
        uint32_t bits = __float_as_uint((float)size);
        if ((uint32_t)__uint_as_float(bits) > size) bits--;
        c[j] = (s < 0 ? -__uint_as_float(bits) : __uint_as_float(bits)) * unit;
    }
}

static void make(warp_wgmmas *w, const wgmma &x)
{
    float a[ROWS][DEPTH], b[DEPTH][COLUMNS];
    bool any[ROWS], some = false;
    int columns = 0; /* from there on b is 0, and c stays */
    if (!x.add) memset(w->c, 0, sizeof w->c);
    for (int r = 0; r < ROWS; r++) {
        decode(a[r], 1, x.a, warp_number() % 4 * ROWS + r);
        any[r] = false;
        for (int k = 0; k < DEPTH; k++) any[r] |= a[r][k] != 0;
        some |= any[r];
    }
    if (!some) return;
    for (int j = 0; j < COLUMNS; j++) {
        decode(&b[0][j], COLUMNS, x.b, j);
        for (int k = 0; k < DEPTH; k++)
            if (b[k][j] != 0) columns = j + 1;
    }
    for (int r = 0; r < ROWS; r++)
        if (any[r]) add_up(w->c[r], a[r], b, columns);
}

/* Element i of a lane's fragment of c */
static float *number(warp_wgmmas *w, int lane, int i)
{
    return &w->c[lane / 4 + i % 4 / 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
}

struct step { /* payload of a lane */
    thread_view *lane;
    float *c;
    wgmma p;
    int but;
};

static warp_wgmmas *warp_of(void *const payload[32], unsigned present)
{
    if (present != 0xffffffffu) fault("products need all 32 lanes; present: %08x", present);
    for (int i = 1; i < 32; i++) {
        const wgmma &p = ((const step *)payload[i])->p, &q = ((const step *)payload[0])->p;
        if (p.a != q.a || p.b != q.b || p.add != q.add) fault("lanes of one warp bring different operands");
    }
    return &of_warp[warp_number()];
}

static void begin(void *const payload[32], unsigned present)
{
    const uint32_t poison = 0xffffffffu;
    warp_wgmmas *w = warp_of(payload, present);
    const wgmma &p = ((const step *)payload[0])->p;
    std::vector<wgmma> &group = of_group[warp_number() / 4];
    for (uint64_t operand : {p.a, p.b}) {
        if (operand >> 62 != 1)
            fault("an operand's layout is %d; 1, 128 bytes, is what the emulator has", (int)(operand >> 62));
        if (operand >> 49 & 7) fault("an operand has a base offset, which the emulator has not");
    }
    if (!w->live && !w->fenced) fault("the first product comes without wgmma_fence");
    if (w->begun < group.size()) {
        const wgmma &q = group[w->begun];
        if (p.a != q.a || p.b != q.b || p.add != q.add) fault("warps of one group bring different operands");
    } else {
        group.push_back(p);
    }
    w->begun++;
    for (int lane = 0; lane < 32; lane++) {
        const step *s = (const step *)payload[lane];
        if (!w->live) {
            w->lane_c[lane] = s->c;
            for (int i = 0; i < ACCUMULATORS; i++) *number(w, lane, i) = s->c[i];
            memset(s->c, POISON, ACCUMULATORS * sizeof *s->c);
            s->lane->copies++;
            continue;
        }
        if (w->lane_c[lane] != s->c) fault("products of two results are under way, the emulator has one");
        for (int i = 0; i < ACCUMULATORS; i++)
            if (memcmp(&s->c[i], &poison, sizeof poison)) fault("registers of products under way were written");
    }
    w->live = true;
    w->pending.push_back({p.a, p.b, p.add, w->commits});
}

static void fence(void *const payload[32], unsigned present)
{
    warp_of(payload, present)->fenced = true;
}

static void commit(void *const payload[32], unsigned present)
{
    warp_of(payload, present)->commits++;
}

static void finish(void *const payload[32], unsigned present)
{
    warp_wgmmas *w = warp_of(payload, present);
    const int but = ((const step *)payload[0])->but;
    std::vector<wgmma> rest;
    for (const wgmma &p : w->pending) {
        if (p.group + but < w->commits)
            make(w, p);
        else
            rest.push_back(p);
    }
    w->pending = rest;
    if (!w->live || !rest.empty()) return;
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < ACCUMULATORS; i++) w->lane_c[lane][i] = *number(w, lane, i);
        ((step *)payload[lane])->lane->copies--;
    }
    w->live = w->fenced = false;
}

void wgmma_begun(const place &at, float *c, uint64_t a, uint64_t b, bool add)
{
    if (warp_number() >= MOST_WARPS) fault("products by warp %d", warp_number());
    step s = {self, c, {a, b, add, 0}, 0};
    meet_warp(at, 0xffffffffu, &s, begin);
}

void wgmma_fenced(const place &at)
{
    step s = {};
    meet_warp(at, 0xffffffffu, &s, fence);
}

void wgmma_committed(const place &at)
{
    step s = {};
    meet_warp(at, 0xffffffffu, &s, commit);
}

void wgmma_awaited(const place &at, int but)
{
    const warp_wgmmas &w = of_warp[warp_number()];
    step s = {self, nullptr, {}, but};
    /* warps of one warpgroup do not run in lockstep */
    for (uint64_t n = skew * (w.begun + 1) * (uint64_t)(warp_number() + 3) >> 57; n > 100; n--) let_others_go_on();
    meet_warp(at, 0xffffffffu, &s, finish);
}

void end_of_cluster()
{
    if (!under_way.empty()) fault("the block ends while %zu bulk copies are under way", under_way.size());
    barriers.clear();
    for (int i = 0; i < MOST_WARPS; i++) {
        if (of_warp[i].begun < of_group[i / 4].size() && !of_group[i / 4].empty())
            fault("warp %d makes %zu products, others of its group %zu", i % 4, of_warp[i].begun,
                  of_group[i / 4].size());
        of_warp[i].begun = 0;
        of_warp[i].commits = 0;
        of_warp[i].fenced = false;
    }
    for (auto &g : of_group) g.clear();
    skew = skew * 6364136223846793005u + 1442695040888963407u;
}

static const bool tables_are_made = [] {
    for (unsigned i = 0; i < 0x10000; i++) {
        __half h;
        h.__x = (unsigned short)i;
        widened[i] = (float)h;
    }
    return true;
}();

} // namespace mode_emu
