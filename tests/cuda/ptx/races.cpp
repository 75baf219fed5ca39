/* races.cpp - data races, found by what orders two accesses and not by what happened (MODE_EMULATOR_PTX_RACES=1).
 *
 * Two accesses to a byte of shared or global memory, one of them a write, must be ordered by happens-before: the
 * "causality order" of the PTX ISA, "Memory Consistency Model". What orders accesses, by section of the manual:
 *
 * - "Program Order": those of one thread. Lanes of a warp are different threads, even where they run together.
 * - "bar, barrier" (bar.sync): all threads that execute it, those of a block that have not ended. What a thread that
 *   has ended did since its last barrier is not ordered by a later one.
 * - "bar.warp.sync": the lanes of its mask. "shfl.sync", "vote.sync" and "match.sync" wait for lanes, and their
 *   sections promise no order of memory; the memory consistency model ("Memory synchronization") lists none of them.
 * - "barrier.cluster" (arrive.release, wait.acquire): all threads of the cluster. Blocks of different clusters are
 *   never ordered within a launch. There is no atomic instruction in our kernels; the interpreter knows none.
 * - "mbarrier.arrive" releases, a "mbarrier.try_wait" that returns true acquires what came before the arrivals of the
 *   phases that have completed. Their default scope is .cta: an arrival at another block's barrier does not order the
 *   accesses of threads ("Morally Strong Operations"). Completed wgmmas and bulk copies are taken as ordered by it
 *   nevertheless: what they read has been read, and CUTLASS frees stages of its pipelines like this.
 * - "Asynchronous Operations": each cp.async, cp.async.bulk and wgmma is by a thread of its own, which begins after
 *   the instruction that issues it. cp.async: the issuing thread's cp.async.wait_group ends it. cp.async.bulk: its
 *   completion is counted at an mbarrier, and only who acquires that phase is after it; this orders nothing else that
 *   its issuer did. wgmma: wgmma.wait_group ends it for the warp that executes it.
 * - "Async Proxy": wgmma and bulk copies access memory by the async proxy. A thread's write that they read or
 *   overwrite needs a fence.proxy.async between, anywhere along the order from one to the other. Their completion
 *   implies such a fence, so what comes after them needs none. A thread's read that a bulk copy overwrites later needs
 *   order, and no fence is asked for: the manual has no rule for it, and CUTLASS uses none.
 * - "mbarrier.init" is a write, the other operations on the barrier are reads that race with it alone. Bulk copies need
 *   a fence.mbarrier_init or fence.proxy.async after it (CUDA's programming guide, "Asynchronous Data Copies").
 * - "wgmma.fence": before a warp's first wgmma, and between any other access to registers of an accumulator and the
 *   next wgmma on them; none may be accessed while it is under way.
 * - "Shared Memory Lifetime" (clusters): a block must not end before what others do to its shared memory.
 *
 * Matrix instructions and ldmatrix are collective: what they read must be ordered for all lanes.
 *
 * DESIGN: after FastTrack (Flanagan, Freund, 2009). `now` counts the events that order something. An access is
 * remembered with its time; thread t knows of thread u the time of u's last event that t is after: an access of u with
 * a smaller time is ordered before t. A barrier of a block or cluster makes all know all, one number each. Lanes of a
 * warp know of each other by a matrix, and whatever comes by mbarriers or completed operations is in a vector per thread
 * (`view`), which kernels without these do not have. Columns of a vector: threads of the cluster, then each warp's
 * wgmmas, then each mbarrier's bulk copies. A cell of memory remembers its last write, and the reads since that are not
 * ordered before another one; reads of a warp at one time are one mark. Dropped reads are ordered before a remembered
 * one, so the first race of an execution is always reported. Cells are as small as the smallest access to their 256
 * bytes so far, so they are exact to the byte. Marks of earlier clusters are void in shared memory; in global memory
 * they race with everything, and those of earlier launches are void.
 *
 * This holds for every schedule that makes the same accesses: which values are read does not matter. */
#include "ptx.h"

#include "../emulator/emulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

namespace mode_ptx
{

bool checking = getenv("MODE_EMULATOR_PTX_RACES") != nullptr;

namespace races
{

namespace
{

enum by : uint8_t { THREADS, COPIES, PRODUCTS, BULK };

struct mark { /* accesses by one warp at one time; the last one's instruction */
    uint32_t cluster, time, pc;
    uint32_t lanes;
    uint16_t agent;   /* the warp in its cluster */
    uint16_t barrier; /* BULK: the mbarrier's number */
    enum by by;
};
struct cell {
    mark writer, reader, stranger;           /* stranger: a reader of an earlier cluster; cluster 0: nobody */
    std::unique_ptr<std::vector<mark>> more; /* readers beside `reader` */
};
struct page { /* 256 bytes */
    std::unique_ptr<cell[]> cells;
    uint8_t shift = 4; /* bytes per cell: 1 << shift */
};
enum { PAGE = 256, REGION = 1 << 16 };
struct region {
    page pages[REGION / PAGE];
};

using clocks = std::vector<uint32_t>; /* by column; 0 from its end on */
struct view {
    clocks known, fenced; /* fenced: of threads alone, what a fence.proxy.async came after */
};
struct warp_state {
    uint32_t known[WARP][WARP];                /* [l][m]: what lane l knows of lane m by barriers of the warp */
    uint32_t ended;                            /* lanes */
    uint32_t at_block[WARP], at_cluster[WARP]; /* of a lane that has ended: what others know of it by barriers */
    uint32_t knew[WARP];                       /* and what it knew of other blocks */
    view more[WARP];
    clocks commits;                    /* of groups of wgmmas */
    std::vector<const insn *> touched; /* accesses to accumulators since wgmma.fence */
    bool was_fenced;
};
struct barrier_state {
    view arriving, complete; /* of the phase that is under way; of those before */
    uint16_t agent, fence_agent;
    int lane, fence_lane;
    uint32_t time, fence_time; /* of init and of the fence after it; fence_time 0: none */
};

uint32_t now = 1;                /* events; never starts again */
uint32_t cluster = 0, first = 0; /* serial numbers: of this cluster and of the launch's first */
size_t n_warps = 1;              /* of a block */
uint32_t cluster_time;
clocks block_time;             /* by rank */
std::vector<warp_state> warps; /* by agent */
std::vector<barrier_state> barriers;
std::vector<std::vector<page>> shared; /* by rank */
std::vector<std::vector<mark>> visits; /* by rank: what other blocks did to its shared memory */
std::unordered_map<uint64_t, std::unique_ptr<region>> regions;
std::pair<uint64_t, region *> recent[256]; /* of regions */
size_t n_cells;
std::vector<uint64_t> numbers; /* of the launch's clusters so far */
const function *running;
const mode_emu::grid *launched;

uint32_t at(const clocks &c, size_t k)
{
    return k < c.size() ? c[k] : 0;
}

void raise(clocks &c, size_t k, uint32_t time)
{
    if (k >= c.size()) c.resize(k + 1);
    c[k] = std::max(c[k], time);
}

void join(clocks &c, const clocks &with)
{
    if (c.size() < with.size()) c.resize(with.size());
    for (size_t k = 0; k < with.size(); k++) c[k] = std::max(c[k], with[k]);
}

void join(view &v, const view &with)
{
    join(v.known, with.known);
    join(v.fenced, with.fenced);
}

uint16_t agent_of(const warp &w)
{
    return (uint16_t)((size_t)w.its->rank * n_warps + (size_t)w.number);
}

size_t column(size_t agent, int lane)
{
    return agent * WARP + (size_t)lane;
}

size_t column_of_products(size_t agent)
{
    return warps.size() * WARP + agent;
}

size_t column_of_bulk(size_t barrier)
{
    return warps.size() * (WARP + 1) + barrier;
}

/* ---- what is ordered ---- */

/* What every thread of block `rank` knows of a thread by barriers of the block and of the cluster */
uint32_t by_barriers(size_t rank, size_t agent, int lane)
{
    const warp_state &of = warps[agent];
    const bool is_own = agent / n_warps == rank;
    const uint32_t time = is_own ? block_time[rank] : cluster_time;
    if (!(of.ended >> lane & 1)) return time;
    return std::min(time, is_own ? of.at_block[lane] : of.at_cluster[lane]);
}

/* What lane l of a warp knows of lane m of another */
uint32_t known(size_t me, int l, size_t agent, int m)
{
    const warp_state &mine = warps[me];
    uint32_t time = by_barriers(me / n_warps, agent, m);
    if (mine.ended >> l & 1 && agent / n_warps != me / n_warps) time = std::min(time, mine.knew[l]);
    if (me == agent) time = std::max(time, mine.known[l][m]);
    return std::max(time, at(mine.more[l].known, column(agent, m)));
}

bool is_before(const mark &m, size_t me, int lane)
{
    const view &v = warps[me].more[lane];
    if (m.by == COPIES) return false; /* until they become THREADS */
    if (m.by == PRODUCTS) return m.time < at(v.known, column_of_products(m.agent));
    if (m.by == BULK) return m.time < at(v.known, column_of_bulk(m.barrier));
    for (uint32_t others = m.agent == me ? m.lanes & ~(1u << lane) : m.lanes; others; others &= others - 1)
        if (m.time >= known(me, lane, m.agent, __builtin_ctz(others))) return false;
    return true;
}

/* Is m ordered before what `lanes` of warp `me` do now? floor: marks of earlier clusters are void. */
bool is_before(const mark &m, size_t me, uint32_t lanes, uint32_t floor)
{
    if (m.cluster < floor) return true;
    if (m.cluster != cluster) return false;
    if (m.by == THREADS && m.agent / n_warps == me / n_warps && m.time < block_time[me / n_warps] &&
        !(m.lanes & warps[m.agent].ended))
        return true; /* the usual case: a barrier of the block since */
    for (; lanes; lanes &= lanes - 1)
        if (!is_before(m, me, __builtin_ctz(lanes))) return false;
    return true;
}

/* The same, and with a fence.proxy.async between, if a thread wrote it */
bool is_fenced(const mark &m, size_t me, uint32_t lanes, uint32_t floor)
{
    if (m.cluster < floor || m.by != THREADS) return true;
    for (; lanes; lanes &= lanes - 1)
        for (uint32_t l = m.lanes; l; l &= l - 1)
            if (m.time >= at(warps[me].more[__builtin_ctz(lanes)].fenced, column(m.agent, __builtin_ctz(l))))
                return false;
    return true;
}

/* ---- reports ---- */

struct access {
    warp &w;
    uint32_t lanes;
    bool writes, is_shared;
    enum by by;
    uint64_t address; /* of shared memory: an offset in the block `rank` */
    size_t bytes;
    int rank;
    int barrier; /* BULK */
};

const char *verb(enum by by, bool writes)
{
    static const char *const verbs[][2] = {{"reads", "writes"},
                                           {"reads by cp.async", "writes by cp.async"},
                                           {"reads by wgmma", ""},
                                           {"reads by a bulk copy", "writes by a bulk copy"}};
    return verbs[by][writes];
}

std::string thread_of(const mark &m)
{
    char text[96];
    const uint64_t k = numbers[m.cluster - first] * warps.size() / n_warps + m.agent / n_warps;
    const dim3 n = launched->blocks;
    snprintf(text, sizeof text, "thread %d of block (%u, %u, %u)",
             (int)(m.agent % n_warps) * WARP + (m.lanes ? __builtin_ctz(m.lanes) : 0), (unsigned)(k % n.x),
             (unsigned)(k / n.x % n.y), (unsigned)(k / n.x / n.y));
    return text;
}

/* What would have ordered m before the access */
const char *remedy(const mark &m, const access &a, bool is_ordered)
{
    const size_t me = agent_of(a.w);
    if (m.cluster != cluster) return "nothing: blocks are not ordered within a launch";
    if (is_ordered) return "fence.proxy.async after the write, before what orders the two";
    if (m.by == COPIES) return "cp.async.wait_group in that thread (for other threads a barrier after it)";
    if (m.by == BULK) return "waiting for the phase of its mbarrier";
    if (m.by == PRODUCTS) return "wgmma.wait_group in that warp (for other threads a barrier after it)";
    if (m.agent == me) return "bar.warp.sync or bar.sync";
    if (m.agent / n_warps == me / n_warps) return "bar.sync or an mbarrier";
    return "barrier.cluster, or an mbarrier with .release.cluster and .acquire.cluster";
}

/* A lane of m and one of `lanes` that are not ordered */
uint32_t unordered(const mark &m, size_t me, uint32_t lanes, int *mine)
{
    for (; lanes; lanes &= lanes - 1)
        for (uint32_t l = m.lanes; l; l &= l - 1) {
            *mine = __builtin_ctz(lanes);
            if ((m.agent != me || *mine != __builtin_ctz(l)) && m.time >= known(me, *mine, m.agent, __builtin_ctz(l)))
                return l & -l;
        }
    return m.lanes;
}

[[noreturn]] void report(const mark &m, const access &a, bool writes, bool is_ordered)
{
    int mine = __builtin_ctz(a.lanes);
    mark other = m;
    if (m.by == THREADS && m.cluster == cluster && !is_ordered)
        other.lanes = unordered(m, agent_of(a.w), a.lanes, &mine);
    char place[64];
    if (a.is_shared)
        snprintf(place, sizeof place, "%zu bytes at %llu of shared memory", a.bytes, (unsigned long long)a.address);
    else
        snprintf(place, sizeof place, "%zu bytes at %p of global memory", a.bytes, (void *)a.address);
    fault(a.w, mine, "%s %s, some of which %s %s, in no order. What would order the two: %s\nptx:   the other at %s",
          verb(a.by, a.writes), place, thread_of(other).c_str(), verb(m.by, writes), remedy(m, a, is_ordered),
          where(*running, running->code[m.pc]).c_str());
}

/* ---- cells ---- */

void refine(page &p, int shift)
{
    const size_t n = PAGE >> p.shift, times = (size_t)1 << (p.shift - shift);
    n_cells += n * (times - 1);
    std::unique_ptr<cell[]> finer(new cell[n * times]());
    for (size_t k = 0; k < n * times; k++) {
        const cell &from = p.cells[k / times];
        finer[k].writer = from.writer;
        finer[k].reader = from.reader;
        finer[k].stranger = from.stranger;
        if (from.more) finer[k].more.reset(new std::vector<mark>(*from.more));
    }
    p.cells = std::move(finer);
    p.shift = (uint8_t)shift;
}

page &page_at(const access &a, uint64_t address)
{
    if (a.is_shared) return shared[(size_t)a.rank][address / PAGE];
    const uint64_t number = address / REGION;
    std::pair<uint64_t, region *> &last = recent[number % (sizeof recent / sizeof *recent)];
    if (!last.second || last.first != number) {
        std::unique_ptr<region> &r = regions[number];
        if (!r) r.reset(new region);
        last = {number, r.get()};
    }
    return last.second->pages[address % REGION / PAGE];
}

template <typename F> void each_cell(const access &a, F f)
{
    for (uint64_t at = a.address, end = a.address + a.bytes; at < end;) {
        page &p = page_at(a, at);
        const uint64_t from = at % PAGE, to = std::min<uint64_t>(PAGE, from + (end - at));
        const int shift = std::min(4, __builtin_ctzll(from | to | 16));
        if (!p.cells) {
            p.shift = (uint8_t)shift;
            p.cells.reset(new cell[PAGE >> shift]());
            n_cells += PAGE >> shift;
        } else if (shift < p.shift)
            refine(p, shift);
        for (uint64_t k = from >> p.shift; k < to >> p.shift; k++) f(p.cells[k]);
        at += to - from;
    }
}

/* The reads that are remembered, without those that `lanes` of this access supersede or that are ordered before it */
void forget_reads(cell &c, const mark &m, uint32_t floor)
{
    const auto is_old = [&](mark &r) {
        if (r.by == THREADS && m.by == THREADS && r.agent == m.agent) {
            r.lanes &= ~m.lanes;
            if (!r.lanes) return true;
        }
        if (r.by == m.by && (m.by == PRODUCTS ? r.agent == m.agent : m.by == BULK && r.barrier == m.barrier))
            return true; /* complete in order */
        return m.by == THREADS && r.time != m.time && is_before(r, m.agent, m.lanes & -m.lanes, floor);
    };
    if (c.more) c.more->erase(std::remove_if(c.more->begin(), c.more->end(), is_old), c.more->end());
    if (!is_old(c.reader)) return;
    c.reader = mark();
    if (c.more && !c.more->empty()) {
        c.reader = c.more->back();
        c.more->pop_back();
    }
}

void remember_read(cell &c, const mark &m, uint32_t floor)
{
    if (c.reader.cluster != cluster) {
        if (c.reader.cluster >= floor) c.stranger = c.reader;
        c.reader = m;
        if (c.more) c.more->clear();
        return;
    }
    const auto merges = [&](mark &r) {
        if (r.by != m.by || r.agent != m.agent || r.time != m.time || r.barrier != m.barrier) return false;
        if (m.by != THREADS && r.pc != m.pc) return false;
        r.pc = m.pc;
        r.lanes |= m.lanes;
        return true;
    };
    if (merges(c.reader)) return;
    for (size_t k = c.more ? c.more->size() : 0; k-- > 0;)
        if (merges((*c.more)[k])) {
            std::swap((*c.more)[k], c.reader); /* the next read is likely to be of the same warp */
            return;
        }
    forget_reads(c, m, floor);
    if (!c.reader.cluster) {
        c.reader = m;
        return;
    }
    if (!c.more) c.more.reset(new std::vector<mark>);
    c.more->push_back(m);
}

void read_cell(cell &c, const access &a, const mark &m, uint32_t floor)
{
    if (!is_before(c.writer, agent_of(a.w), a.lanes, floor)) report(c.writer, a, true, false);
    if ((a.by == PRODUCTS || a.by == BULK) && !is_fenced(c.writer, agent_of(a.w), a.lanes, floor))
        report(c.writer, a, true, true);
    remember_read(c, m, floor);
}

void write_cell(cell &c, const access &a, const mark &m, uint32_t floor)
{
    const size_t me = agent_of(a.w);
    if (!is_before(c.writer, me, a.lanes, floor)) report(c.writer, a, true, false);
    if (a.by == BULK && !is_fenced(c.writer, me, a.lanes, floor)) report(c.writer, a, true, true);
    if (!is_before(c.reader, me, a.lanes, floor)) report(c.reader, a, false, false);
    if (!is_before(c.stranger, me, a.lanes, floor)) report(c.stranger, a, false, false);
    if (c.more)
        for (const mark &r : *c.more)
            if (!is_before(r, me, a.lanes, floor)) report(r, a, false, false);
    c.writer = m;
    c.reader = c.stranger = mark();
    if (c.more) c.more->clear();
}

mark mark_of(const access &a)
{
    return {cluster, now, (uint32_t)(a.w.now - running->code.data()), a.lanes, agent_of(a.w), (uint16_t)a.barrier,
            a.by};
}

/* What another block does to this one's shared memory */
void visit(const access &a, const mark &m)
{
    std::vector<mark> &v = visits[(size_t)a.rank];
    for (mark &old : v)
        if (old.by == m.by && old.agent == m.agent && old.barrier == m.barrier && old.lanes == m.lanes) {
            old = m;
            return;
        }
    v.push_back(m);
}

void touch(const access &a)
{
    const uint32_t floor = a.is_shared ? cluster : first;
    const mark m = mark_of(a);
    if (a.is_shared && a.rank != a.w.its->rank) visit(a, m);
    if (a.writes)
        each_cell(a, [&](cell &c) { write_cell(c, a, m, floor); });
    else
        each_cell(a, [&](cell &c) { read_cell(c, a, m, floor); });
}

access access_to_shared(warp &w, uint32_t lanes, uint32_t address, size_t bytes, bool writes, enum by by)
{
    const uint32_t rank = address >> CLUSTER_SHIFT, offset = (address & ((1u << CLUSTER_SHIFT) - 1)) - SHARED_BASE;
    return {w, lanes, writes, true, by, offset, bytes, rank ? (int)rank - 1 : w.its->rank, 0};
}

/* ---- knowledge that moves ---- */

/* All that a lane knows, itself up to now; what a release hands on */
view all_known(const warp &w, int lane)
{
    const size_t me = agent_of(w);
    view v = warps[me].more[lane];
    if (v.known.size() < warps.size() * WARP) v.known.resize(warps.size() * WARP);
    for (size_t agent = 0; agent < warps.size(); agent++)
        for (int m = 0; m < WARP; m++) v.known[column(agent, m)] = known(me, lane, agent, m);
    v.known[column(me, lane)] = now;
    return v;
}

bool any_view(size_t from, size_t to)
{
    for (size_t k = from; k < to; k++)
        for (const view &v : warps[k].more)
            if (!v.known.empty() || !v.fenced.empty()) return true;
    return false;
}

/* What mbarriers and completed operations taught one of these warps, all that have not ended know. */
void share_views(size_t from, size_t to)
{
    if (!any_view(from, to)) return;
    view all;
    for (size_t k = from; k < to; k++)
        for (int l = 0; l < WARP; l++)
            if (!(warps[k].ended >> l & 1)) join(all, warps[k].more[l]);
    for (size_t k = from; k < to; k++)
        for (int l = 0; l < WARP; l++)
            if (!(warps[k].ended >> l & 1)) warps[k].more[l] = all;
}

/* Lanes that have ended are known as far as lanes of their warp know them by barriers of the warp. */
void share_ended(size_t from, size_t to, bool of_cluster)
{
    for (size_t k = from; k < to; k++) {
        warp_state &s = warps[k];
        for (uint32_t e = s.ended; e; e &= e - 1) {
            const int m = __builtin_ctz(e);
            for (int l = 0; l < WARP; l++)
                if (!(s.ended >> l & 1)) s.at_block[m] = std::max(s.at_block[m], s.known[l][m]);
            if (of_cluster) s.at_cluster[m] = std::max(s.at_cluster[m], s.at_block[m]);
        }
    }
}

} // namespace

/* ---- launches and clusters ---- */

void open_launch(const function &f, const mode_emu::grid &g)
{
    running = &f;
    launched = &g;
    first = cluster + 1;
    numbers.clear();
    if (n_cells * sizeof(cell) > (size_t)1 << 28) { /* of memory that may be long freed */
        regions.clear();
        std::fill(std::begin(recent), std::end(recent), std::make_pair(0, nullptr));
        n_cells = 0;
    }
}

void open_cluster(std::vector<block> &of, uint64_t number)
{
    cluster++;
    now++;
    numbers.push_back(number);
    n_warps = of[0].warps.size();
    cluster_time = now;
    block_time.assign(of.size(), now);
    warps.resize(of.size() * n_warps);
    for (warp_state &s : warps) {
        memset(s.known, 0, sizeof s.known);
        s.ended = 0;
        for (view &v : s.more) {
            v.known.clear();
            v.fenced.clear();
        }
        s.commits.clear();
        s.touched.clear();
        s.was_fenced = false;
    }
    barriers.clear();
    shared.resize(std::max(shared.size(), of.size()));
    for (size_t k = 0; k < of.size(); k++)
        if (shared[k].size() * PAGE < of[k].shared.size()) shared[k].resize(of[k].shared.size() / PAGE + 1);
    visits.assign(of.size(), {});
}

void close_cluster(std::vector<block> &of)
{
    for (size_t rank = 0; rank < of.size(); rank++)
        for (const mark &m : visits[rank]) {
            bool is_known = false;
            for (size_t k = 0; k < n_warps; k++)
                for (int l = 0; l < WARP && !is_known; l++) is_known = is_before(m, rank * n_warps + k, l);
            if (is_known) continue;
            warp &w = of[rank].warps[0];
            w.now = &running->code[m.pc];
            fault(w, 0,
                  "its block may have ended when %s accesses its shared memory. What would order the two: "
                  "barrier.cluster before the end",
                  thread_of(m).c_str());
        }
}

void end_lanes(const warp &w, uint32_t lanes)
{
    warp_state &s = warps[agent_of(w)];
    for (uint32_t m = lanes & ~s.ended; m; m &= m - 1) {
        s.at_block[__builtin_ctz(m)] = block_time[(size_t)w.its->rank];
        s.at_cluster[__builtin_ctz(m)] = s.knew[__builtin_ctz(m)] = cluster_time;
    }
    s.ended |= lanes;
}

/* ---- barriers ---- */

void sync_block(const block &b)
{
    const size_t from = (size_t)b.rank * n_warps, to = from + n_warps;
    share_ended(from, to, false);
    share_views(from, to);
    block_time[(size_t)b.rank] = ++now;
}

void sync_cluster()
{
    share_ended(0, warps.size(), true);
    share_views(0, warps.size());
    cluster_time = ++now;
    for (uint32_t &t : block_time) t = now;
}

void sync_warp(const warp &w, uint32_t lanes)
{
    warp_state &s = warps[agent_of(w)];
    uint32_t all[WARP] = {0};
    view together;
    now++;
    for (uint32_t l = lanes; l; l &= l - 1) {
        const int lane = __builtin_ctz(l);
        for (int m = 0; m < WARP; m++) all[m] = std::max(all[m], s.known[lane][m]);
        join(together, s.more[lane]);
    }
    for (uint32_t l = lanes; l; l &= l - 1) all[__builtin_ctz(l)] = now;
    for (uint32_t l = lanes; l; l &= l - 1) {
        memcpy(s.known[__builtin_ctz(l)], all, sizeof all);
        if (!together.known.empty() || !together.fenced.empty()) s.more[__builtin_ctz(l)] = together;
    }
}

void fence_proxy(const warp &w, uint32_t lanes)
{
    now++;
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const size_t me = agent_of(w);
        join(warps[me].more[l].fenced, all_known(w, l).known);
        for (barrier_state &b : barriers)
            if ((b.agent == me && b.lane == l) || b.time < known(me, l, b.agent, b.lane))
                b.fence_time = now, b.fence_agent = (uint16_t)me, b.fence_lane = l;
    }
}

void fence_barriers(const warp &w, uint32_t lanes)
{
    for (barrier_state &b : barriers)
        if (b.agent == agent_of(w) && lanes >> b.lane & 1)
            b.fence_time = now, b.fence_agent = b.agent, b.fence_lane = b.lane;
}

/* ---- mbarriers ---- */

int open_barrier(warp &w, int lane, uint32_t address)
{
    touch(access_to_shared(w, 1u << lane, address, 8, true, THREADS));
    barriers.push_back({{}, {}, agent_of(w), 0, lane, 0, now, 0});
    return (int)barriers.size() - 1;
}

void use_barrier(warp &w, int lane, uint32_t address)
{
    touch(access_to_shared(w, 1u << lane, address, 8, false, THREADS));
}

void release_to(const warp &w, int lane, int barrier, bool is_own_block)
{
    now++;
    view v = all_known(w, lane);
    if (!is_own_block) { /* the scope is .cta */
        std::fill(v.known.begin(), v.known.begin() + (ptrdiff_t)(warps.size() * WARP), 0);
        v.fenced.clear();
    }
    join(barriers[(size_t)barrier].arriving, v);
}

void complete_phase(int barrier)
{
    barrier_state &b = barriers[(size_t)barrier];
    join(b.complete, b.arriving);
    b.arriving = view();
    raise(b.complete.known, column_of_bulk((size_t)barrier), ++now);
}

void acquire_from(const warp &w, int lane, int barrier)
{
    join(warps[agent_of(w)].more[lane], barriers[(size_t)barrier].complete);
}

/* ---- accesses ---- */

void touch_shared(warp &w, uint32_t lanes, uint32_t address, size_t bytes, bool writes)
{
    touch(access_to_shared(w, lanes, address, bytes, writes, THREADS));
}

void touch_global(warp &w, uint32_t lanes, uint64_t address, size_t bytes, bool writes)
{
    touch({w, lanes, writes, false, THREADS, address, bytes, 0, 0});
}

void begin_copy(warp &w, int lane, copy &c)
{
    c.time = now;
    c.by = w.now;
    touch(access_to_shared(w, 1u << lane, c.address, 16, true, COPIES));
    if (c.taken) touch({w, 1u << lane, false, false, COPIES, (uint64_t)c.from, c.taken, 0, 0});
}

void commit_copies()
{
    now++;
}

/* What the copy did becomes what its thread did. Nobody wrote there since it began, that would have been a race. */
void end_copy(warp &w, int lane, const copy &c)
{
    const insn *const at = w.now;
    w.now = c.by;
    access a = access_to_shared(w, 1u << lane, c.address, 16, true, THREADS);
    each_cell(a, [&](cell &x) { x.writer = mark_of(a); });
    access from = {w, 1u << lane, false, false, COPIES, (uint64_t)c.from, c.taken, 0, 0};
    mark m = mark_of(from);
    m.time = c.time;
    const auto end = [&](mark &r) {
        if (r.by == COPIES && r.cluster == cluster && r.agent == m.agent && r.time == m.time && r.pc == m.pc)
            r.lanes &= ~m.lanes;
        return !r.lanes;
    };
    each_cell(from, [&](cell &x) {
        if (x.more) x.more->erase(std::remove_if(x.more->begin(), x.more->end(), end), x.more->end());
        if (x.reader.cluster && end(x.reader)) {
            x.reader = mark();
            if (x.more && !x.more->empty()) x.reader = x.more->back(), x.more->pop_back();
        }
    });
    if (c.taken) touch_global(w, 1u << lane, (uint64_t)c.from, c.taken, false);
    w.now = at;
}

void bulk_copy(warp &w, int lane, uint32_t to, uint64_t from, size_t bytes, int barrier)
{
    const barrier_state &b = barriers[(size_t)barrier];
    const size_t me = agent_of(w);
    const bool is_mine = b.fence_agent == me && b.fence_lane == lane;
    if (!b.fence_time || !(is_mine || b.fence_time < known(me, lane, b.fence_agent, b.fence_lane)))
        fault(w, lane, "uses a barrier without a fence.mbarrier_init or fence.proxy.async since its mbarrier.init");
    access a = access_to_shared(w, 1u << lane, to, bytes, true, BULK);
    a.barrier = barrier;
    touch(a);
    touch({w, 1u << lane, false, false, BULK, from, bytes, 0, barrier});
}

/* ---- wgmma ---- */

void product_reads(warp &w, uint32_t address)
{
    touch(access_to_shared(w, ALL, address, 16, false, PRODUCTS));
}

void commit_products(const warp &w)
{
    warps[agent_of(w)].commits.push_back(++now);
}

void wait_for_products(const warp &w, size_t left)
{
    warp_state &s = warps[agent_of(w)];
    if (s.commits.size() <= left) return;
    const uint32_t time = s.commits[s.commits.size() - 1 - left];
    for (view &v : s.more) raise(v.known, column_of_products(agent_of(w)), time);
}

static bool has_row(const insn &i, uint32_t row)
{
    for (uint32_t r : {i.d, i.d2, i.a, i.b, i.c, i.e})
        if (r == row) return true;
    return std::find(i.list.begin(), i.list.end(), row) != i.list.end();
}

static bool share_a_row(const std::vector<uint32_t> &rows, const insn &i)
{
    return std::any_of(rows.begin(), rows.end(), [&](uint32_t r) { return has_row(i, r); });
}

void touch_accumulator(const warp &w, const insn &i)
{
    for (const auto &[row, c] : w.accumulators)
        if (share_a_row(c.rows, i))
            fault(w, 0,
                  "accesses an accumulator of a wgmma that is under way. What would order the two: "
                  "wgmma.commit_group and wgmma.wait_group");
    warps[agent_of(w)].touched.push_back(&i);
}

void fence_registers(const warp &w)
{
    warps[agent_of(w)].touched.clear();
    warps[agent_of(w)].was_fenced = true;
}

void check_registers(const warp &w, const insn &product)
{
    const warp_state &s = warps[agent_of(w)];
    if (!s.was_fenced) fault(w, 0, "the first wgmma of a warp without a wgmma.fence before it");
    for (const insn *i : s.touched)
        if (share_a_row(product.list, *i))
            fault(w, 0, "an accumulator was accessed since the last wgmma.fence\nptx:   the other at %s",
                  where(*running, *i).c_str());
}

} // namespace races

} // namespace mode_ptx
