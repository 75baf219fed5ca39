/* tensor.cpp - matrix instructions, and what sm_90a adds: mbarriers, bulk copies, wgmma.
 *
 * Sums of products are exact and then truncated, as tensor cores do. Bulk copies arrive at random moments, a wgmma's
 * result when it is waited for: until then its registers are NaN, and it reads its operands as late as it may. */
#include "ptx.h"

#include <cmath>
#include <cstring>

namespace mode_ptx
{

namespace
{

float truncated(double x)
{
    const float f = (float)x;
    return std::isfinite(f) && std::fabs((double)f) > std::fabs(x) ? std::nextafter(f, 0.0f) : f;
}

/* ---- ldmatrix, mma ---- */

/* Of each of four 8 x 8 matrices lanes 8 k .. 8 k + 7 pass the rows' addresses. */
template <bool Transposed> void load_matrices(warp &w, const insn &i, uint32_t lanes)
{
    uint16_t m[4][8][8];
    uint32_t at[WARP];
    for (int l = 0; l < WARP; l++) {
        at[l] = w.row<uint32_t>(i.a)[l] + (uint32_t)i.offset;
        memcpy(m[l / 8][l % 8], shared_at(w, l, at[l], 16), 16);
        if (checking) races::touch_shared(w, lanes, at[l], 16, false);
    }
    if (counting) count_shared(w, at, lanes, 16);
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < WARP; l++) {
            const int g = l / 4, t = l % 4;
            const uint16_t first = Transposed ? m[k][2 * t][g] : m[k][g][2 * t],
                           second = Transposed ? m[k][2 * t + 1][g] : m[k][g][2 * t + 1];
            w.row<uint32_t>(i.list[(size_t)k])[l] = first | (uint32_t)second << 16;
        }
}

/* mma.m16n8k16: list: d[4], a[4], b[2], c[4]. Elements as "Matrix Fragments for mma.m16n8k16 with floating point type"
 * places them: a's register r, half h of lane l is row l / 4 + 8 (r % 2), column 2 (l % 4) + h + 8 (r / 2); b's is row
 * 2 (l % 4) + h + 8 r, column l / 4; c's and d's element e is row l / 4 + 8 (e / 2), column 2 (l % 4) + e % 2. */
void multiply(warp &w, const insn &i, uint32_t)
{
    float a[16][16], b[16][8];
    for (int l = 0; l < WARP; l++) {
        for (int r = 0; r < 4; r++)
            for (int h = 0; h < 2; h++)
                a[l / 4 + 8 * (r % 2)][2 * (l % 4) + h + 8 * (r / 2)] = bf16_to_float(
                    (uint16_t)(w.row<uint32_t>(i.list[4 + (size_t)r])[l] >> 16 * h));
        for (int r = 0; r < 2; r++)
            for (int h = 0; h < 2; h++)
                b[2 * (l % 4) + h + 8 * r][l / 4] = bf16_to_float(
                    (uint16_t)(w.row<uint32_t>(i.list[8 + (size_t)r])[l] >> 16 * h));
    }
    float out[4][WARP];
    for (int l = 0; l < WARP; l++)
        for (int e = 0; e < 4; e++) {
            const int row = l / 4 + 8 * (e / 2), column = 2 * (l % 4) + e % 2;
            double sum = (double)w.row<float>(i.list[10 + (size_t)e])[l];
            for (int k = 0; k < 16; k++) sum += (double)a[row][k] * (double)b[k][column];
            out[e][l] = truncated(sum);
        }
    for (int e = 0; e < 4; e++) memcpy(w.row<float>(i.list[(size_t)e]), out[e], sizeof out[e]);
}

/* ---- mbarrier ---- */

/* Arrivals and bytes that have come; the phase is complete when nothing is missing. */
void arrive(mbarrier &b, uint32_t arrivals, int64_t bytes)
{
    b.pending -= arrivals;
    b.bytes -= bytes;
    if (b.pending != 0 || b.bytes != 0) return;
    b.phase++;
    b.pending = b.expected;
    if (checking) races::complete_phase(b.number);
}

mbarrier &barrier_at(warp &w, int lane, uint32_t address, block **of = nullptr)
{
    block *owner;
    shared_at(w, lane, address, 8, &owner);
    if (of) *of = owner;
    const auto found = owner->barriers.find(address & ((1u << CLUSTER_SHIFT) - 1));
    if (found == owner->barriers.end()) fault(w, lane, "uses a barrier at %08x that was not initialised", address);
    if (checking) races::use_barrier(w, lane, address);
    return found->second;
}

void barrier_init(warp &w, const insn &i, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const uint32_t at = w.row<uint32_t>(i.a)[l], n = w.row<uint32_t>(i.b)[l];
        shared_at(w, l, at, 8);
        if (n < 1 || n > (1u << 20) - 1) fault(w, l, "initialises a barrier for %u arrivals", n);
        w.its->barriers[at] = {n, n, 0, 0, checking ? races::open_barrier(w, l, at) : -1};
    }
}

void barrier_expect(warp &w, const insn &i, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        mbarrier &b = barrier_at(w, l, w.row<uint32_t>(i.a)[l]);
        if (b.pending == 0) fault(w, l, "arrives at a barrier that expects no arrival");
        b.bytes += w.row<uint32_t>(i.b)[l]; /* expected before the arrival counts */
        if (checking) races::release_to(w, l, b.number, true);
        arrive(b, 1, 0);
    }
}

void barrier_arrive(warp &w, const insn &i, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        block *owner;
        mbarrier &b = barrier_at(w, l, w.row<uint32_t>(i.a)[l], &owner);
        if (b.pending == 0) fault(w, l, "arrives at a barrier that expects no arrival");
        if (checking) races::release_to(w, l, b.number, owner == w.its);
        arrive(b, 1, 0);
    }
}

/* Has the phase of that parity completed? */
void barrier_poll(warp &w, const insn &i, uint32_t lanes)
{
    uint32_t passed = 0;
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const mbarrier &b = barrier_at(w, l, w.row<uint32_t>(i.a)[l]);
        const bool has_passed = (b.phase & 1) != (w.row<uint32_t>(i.b)[l] & 1);
        if (checking && has_passed) races::acquire_from(w, l, b.number);
        passed |= (uint32_t)has_passed << l;
    }
    uint32_t *p = w.row<uint32_t>(i.d);
    *p = (*p & ~lanes) | passed;
}

void map_address(warp &w, const insn &i, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const uint32_t rank = w.row<uint32_t>(i.b)[l], at = w.row<uint32_t>(i.a)[l];
        if (rank >= w.its->cluster->size()) fault(w, l, "maps an address to block %u of the cluster", rank);
        w.row<uint32_t>(i.d)[l] = (at & ((1u << CLUSTER_SHIFT) - 1)) | (rank + 1) << CLUSTER_SHIFT;
    }
}

/* ---- bulk copies ---- */

void copy_bulk(warp &w, const insn &i, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const uint32_t to = w.row<uint32_t>(i.d)[l], bytes = w.row<uint32_t>(i.b)[l], at = w.row<uint32_t>(i.c)[l];
        const uint64_t from = w.row<uint64_t>(i.a)[l];
        const uint32_t blocks = i.e == NONE ? 1u << w.its->rank : w.row<uint32_t>(i.e)[l] & 0xffff;
        if (bytes % 16 || to % 16 || from % 16) fault(w, l, "a bulk copy of %u bytes is not aligned to 16", bytes);
        if (blocks >> w.its->cluster->size()) fault(w, l, "a bulk copy goes to blocks %x of the cluster", blocks);
        for (uint64_t k = 0; k < bytes; k += 16) check_global(w, l, from + k, 16);
        for (uint32_t b = blocks; b; b &= b - 1) {
            const uint32_t there = ((uint32_t)__builtin_ctz(b) + 1) << CLUSTER_SHIFT;
            block *owner;
            char *place = shared_at(w, l, to | there, 16, &owner);
            shared_at(w, l, (to | there) + bytes - 16, 16);
            const mbarrier &counts = barrier_at(w, l, at | there);
            if (checking) races::bulk_copy(w, l, to | there, from, bytes, counts.number);
            memset(place, 0xff, bytes);
            w.its->transfers->push_back({place, (const char *)from, bytes, owner, at, counts.phase});
        }
    }
}

/* ---- wgmma ---- */

/* Element (row, k) of an operand: tiles of 8 rows of 128 bytes, swizzled: bits 4 to 6 of the address are exclusive-ored
 * with bits 7 to 9. */
uint32_t element_at(uint64_t descriptor, int row, int k)
{
    const uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4, stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    const uint32_t at = start + (uint32_t)(row / 8) * stride + (uint32_t)(row % 8) * 128 + (uint32_t)k * 2;
    return at ^ (at >> 7 & 7) << 4;
}

float element(warp &w, uint64_t descriptor, int row, int k)
{
    uint16_t h;
    memcpy(&h, shared_at(w, 0, element_at(descriptor, row, k), 2), 2);
    return f16_to_float(h);
}

void check_descriptor(warp &w, uint64_t d)
{
    if (d >> 62 != 1)
        fault(w, 0, "a descriptor has swizzle mode %d; this interpreter knows 1, of 128 bytes", (int)(d >> 62));
    if (d >> 49 & 7)
        fault(w, 0, "a descriptor has base offset %d, but its tiles begin at multiples of 1024", (int)(d >> 49 & 7));
}

/* wgmma.m64n256k16: this warp's 16 rows of 64. Accumulator 4 j + e of lane l: row l / 4 + 8 (e / 2), column 8 j + 2 (l %
 * 4) + e % 2. */
void accumulate(warp &w, const product &p)
{
    std::vector<float> &c = w.accumulators[p.i->list[0]].values;
    const int first = w.number % 4 * 16;
    static float a[16][16], b[256][16];
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++) a[r][k] = element(w, p.a, first + r, k);
    for (int r = 0; r < 256; r++)
        for (int k = 0; k < 16; k++) b[r][k] = element(w, p.b, r, k);
    for (int j = 0; j < 128; j++)
        for (int l = 0; l < WARP; l++) {
            const int row = l / 4 + 8 * (j % 4 / 2), column = 8 * (j / 4) + 2 * (l % 4) + j % 2;
            double sum = p.add ? (double)c[(size_t)(j * WARP + l)] : 0;
            for (int k = 0; k < 16; k++) sum += (double)a[row][k] * (double)b[column][k];
            c[(size_t)(j * WARP + l)] = truncated(sum);
        }
}

/* What this warp's part of it reads, 16 bytes at a time, and its registers */
void check_product(warp &w, const product &p)
{
    races::check_registers(w, *p.i);
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k += 8) races::product_reads(w, element_at(p.a, w.number % 4 * 16 + r, k));
    for (int r = 0; r < 256; r++)
        for (int k = 0; k < 16; k += 8) races::product_reads(w, element_at(p.b, r, k));
}

void warpgroup_multiply(warp &w, const insn &i, uint32_t)
{
    const product p = {&i, w.row<uint64_t>(i.a)[0], w.row<uint64_t>(i.b)[0], (*w.row<uint32_t>(i.c) & 1) != 0, -1};
    check_descriptor(w, p.a);
    check_descriptor(w, p.b);
    for (int l = 1; l < WARP; l++)
        if (w.row<uint64_t>(i.a)[l] != p.a || w.row<uint64_t>(i.b)[l] != p.b) fault(w, l, "brings another descriptor");
    if (w.accumulators.find(i.list[0]) == w.accumulators.end()) {
        accumulator &c = w.accumulators[i.list[0]];
        c.rows = i.list;
        c.values.resize(i.list.size() * WARP);
        for (size_t k = 0; k < c.rows.size(); k++) {
            memcpy(&c.values[k * WARP], w.row<float>(c.rows[k]), WARP * sizeof(float));
            memset(w.row<float>(c.rows[k]), 0xff, WARP * sizeof(float));
        }
    }
    if (checking) check_product(w, p);
    w.products.push_back(p);
}

void commit_products(warp &w, const insn &, uint32_t)
{
    if (checking) races::commit_products(w);
    for (product &p : w.products)
        if (p.group < 0) p.group = w.product_groups;
    w.product_groups++;
}

void wait_for_products(warp &w, const insn &i, uint32_t)
{
    std::vector<product> left;
    for (const product &p : w.products)
        if (p.group >= 0 && p.group < w.product_groups - (int)i.offset)
            accumulate(w, p);
        else
            left.push_back(p);
    w.products.swap(left);
    if (checking) races::wait_for_products(w, (size_t)i.offset);
    for (auto at = w.accumulators.begin(); at != w.accumulators.end();) {
        const accumulator &c = at->second;
        bool is_used = false;
        for (const product &p : w.products) is_used |= p.i->list[0] == at->first;
        if (!is_used)
            for (size_t k = 0; k < c.rows.size(); k++)
                memcpy(w.row<float>(c.rows[k]), &c.values[k * WARP], WARP * sizeof(float));
        at = is_used ? std::next(at) : w.accumulators.erase(at);
    }
}

void set_registers(warp &w, const insn &i, uint32_t)
{
    if (i.offset < 24 || i.offset > 256 || i.offset % 8) fault(w, 0, "sets %d registers per thread", (int)i.offset);
}

void fence_registers(warp &w, const insn &, uint32_t)
{
    if (checking) races::fence_registers(w);
}

void fence_barriers(warp &w, const insn &, uint32_t lanes)
{
    if (checking) races::fence_barriers(w, lanes);
}

void fence_proxy(warp &w, const insn &, uint32_t lanes)
{
    if (checking) races::fence_proxy(w, lanes);
}

bool decode_product(const statement &s, insn &i)
{
    if (s.op == "wgmma.fence.sync.aligned")
        i.run = fence_registers;
    else if (s.op == "wgmma.commit_group.sync.aligned")
        i.run = commit_products;
    else if (s.op == "wgmma.wait_group.sync.aligned") {
        i.run = wait_for_products;
        i.offset = s.at(0).number;
    } else {
        /* d, descriptors of a and b, a predicate: add; scales of a and b, whether they are transposed */
        static const int64_t expected[] = {1, 1, 0, 0};
        if (s.op != "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16" || s.operands.size() != 8 ||
            s.at(0).rows.size() != 128)
            s.unknown();
        for (size_t k = 0; k < 4; k++)
            if (!s.at(4 + k).is_immediate || s.at(4 + k).number != expected[k]) s.unknown();
        i.run = warpgroup_multiply;
        i.list = s.at(0).rows;
        i.a = s.at(1).rows[0];
        i.b = s.at(2).rows[0];
        i.c = s.at(3).rows[0];
    }
    return true;
}

bool decode_barrier(const statement &s, insn &i)
{
    i.unit = CONTROL;
    if (s.op == "mbarrier.init.shared::cta.b64" || s.op == "mbarrier.arrive.expect_tx.shared::cta.b64" ||
        s.op == "mbarrier.arrive.shared::cluster.b64") {
        const size_t at = s.words[1] == "init" ? 0 : 1;
        i.run = s.words[1] == "init" ? barrier_init : s.has("expect_tx") ? barrier_expect : barrier_arrive;
        i.a = s.at(at).rows[0];
        if (i.run != barrier_arrive) i.b = s.at(at + 1).rows[0];
        return s.at(at).is_address && s.at(at).offset == 0;
    }
    if (s.op != "mbarrier.try_wait.parity.shared::cta.b64") s.unknown();
    i.run = barrier_poll;
    i.kind = POLL;
    i.d = s.at(0).rows[0];
    i.a = s.at(1).rows[0];
    i.b = s.at(2).rows[0];
    return s.at(1).offset == 0;
}

} // namespace

bool deliver(std::vector<transfer> &transfers)
{
    if (transfers.empty()) return false;
    const size_t k = random_below((uint32_t)transfers.size());
    const transfer t = transfers[k];
    transfers.erase(transfers.begin() + (ptrdiff_t)k);
    mbarrier &b = t.at->barriers.at(t.barrier);
    if (b.phase != t.phase)
        fault(t.at->warps[0], 0, "the phase of its barrier at %u completed before a bulk copy that was issued in it",
              t.barrier - SHARED_BASE);
    memcpy(t.to, t.from, t.bytes);
    arrive(b, 0, t.bytes);
    return true;
}

bool decode_tensor(const statement &s, insn &i)
{
    i.unit = TENSOR;
    i.kind = CONVERGED;
    if (s.op == "ldmatrix.sync.aligned.m8n8.x4.shared.b16" ||
        s.op == "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16") {
        i.run = s.has("trans") ? load_matrices<true> : load_matrices<false>;
        i.unit = SHARED;
        i.list = s.at(0).rows;
        i.a = s.at(1).rows[0];
        i.offset = s.at(1).offset;
        return i.list.size() == 4;
    }
    if (s.op == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") {
        i.run = multiply;
        for (size_t k = 0; k < 4; k++)
            for (uint32_t row : s.at(k).rows) i.list.push_back(row);
        return i.list.size() == 14;
    }
    if (s.words[0] == "wgmma") return decode_product(s, i);
    if (s.words[0] == "setmaxnreg") {
        i.run = set_registers;
        i.offset = s.at(0).number;
        return true;
    }
    i.kind = PLAIN;
    if (s.words[0] == "mbarrier") return decode_barrier(s, i);
    if (s.op == "fence.mbarrier_init.release.cluster" || s.op == "fence.proxy.async" ||
        s.op == "fence.proxy.async.shared::cta") {
        i.run = s.has("proxy") ? fence_proxy : fence_barriers;
        i.unit = CONTROL;
        return true;
    }
    if (s.op == "mapa.shared::cluster.u32") {
        i.run = map_address;
        i.unit = INTEGER;
        i.d = s.at(0).rows[0];
        i.a = s.at(1).rows[0];
        i.b = s.at(2).rows[0];
        return true;
    }
    const char *bulk = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
    if (s.op == bulk || s.op == std::string(bulk) + ".multicast::cluster") {
        i.run = copy_bulk;
        i.unit = SHARED;
        i.d = s.at(0).rows[0];
        i.a = s.at(1).rows[0];
        i.b = s.at(2).rows[0];
        i.c = s.at(3).rows[0];
        if (s.operands.size() > 4) i.e = s.at(4).rows[0];
        return true;
    }
    return false;
}

} // namespace mode_ptx
