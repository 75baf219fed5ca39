/* collective.cpp - what lanes of a warp, or threads of a block or cluster do together: shuffles, votes, barriers. */
#include "ptx.h"

namespace mode_ptx
{

static void nothing(warp &, const insn &, uint32_t)
{
}

static void warp_barrier(warp &w, const insn &, uint32_t lanes)
{
    if (checking) races::sync_warp(w, lanes);
}

/* shfl.sync: d|p, a, b (lane, mask of bits or distance), c (segment mask and clamp). A source outside of the segment
 * gives the lane's own value and a false predicate. */
enum mode { UP, DOWN, BFLY, IDX };
template <mode M> static void shuffle(warp &w, const insn &i, uint32_t lanes)
{
    const uint32_t *a = w.row<uint32_t>(i.a), *b = w.row<uint32_t>(i.b), *c = w.row<uint32_t>(i.c);
    uint32_t out[WARP], valid = 0;
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const uint32_t by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
        const int most = (int)(((uint32_t)l & segment) | (clamp & ~segment)), least = (int)((uint32_t)l & segment);
        int from = M == UP     ? l - (int)by
                   : M == DOWN ? l + (int)by
                   : M == BFLY ? l ^ (int)by
                               : least | (int)(by & ~segment);
        const bool inside = M == UP ? from >= most : from <= most;
        if (!inside) from = l;
        if (!(lanes >> from & 1)) fault(w, l, "reads from lane %d, which does not take part", from);
        valid |= (uint32_t)inside << l;
        out[l] = a[from];
    }
    uint32_t *d = w.row<uint32_t>(i.d);
    for (uint32_t m = lanes; m; m &= m - 1) d[__builtin_ctz(m)] = out[__builtin_ctz(m)];
    if (i.d2 != NONE) {
        uint32_t *p = w.row<uint32_t>(i.d2);
        *p = (*p & ~lanes) | valid;
    }
}

static void ballot(warp &w, const insn &i, uint32_t lanes)
{
    const uint32_t all = *w.row<uint32_t>(i.a) & lanes;
    for (uint32_t m = lanes; m; m &= m - 1) w.row<uint32_t>(i.d)[__builtin_ctz(m)] = all;
}

static void set_vote(warp &w, const insn &i, uint32_t lanes, bool value)
{
    uint32_t *p = w.row<uint32_t>(i.d);
    *p = (*p & ~lanes) | (value ? lanes : 0);
}

static void vote_any(warp &w, const insn &i, uint32_t lanes)
{
    set_vote(w, i, lanes, (*w.row<uint32_t>(i.a) & lanes) != 0);
}

static void vote_all(warp &w, const insn &i, uint32_t lanes)
{
    set_vote(w, i, lanes, (*w.row<uint32_t>(i.a) & lanes) == lanes);
}

static void match_any(warp &w, const insn &i, uint32_t lanes)
{
    const uint32_t *a = w.row<uint32_t>(i.a);
    uint32_t out[WARP];
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        out[l] = 0;
        for (uint32_t k = lanes; k; k &= k - 1)
            if (a[__builtin_ctz(k)] == a[l]) out[l] |= 1u << __builtin_ctz(k);
    }
    for (uint32_t m = lanes; m; m &= m - 1) w.row<uint32_t>(i.d)[__builtin_ctz(m)] = out[__builtin_ctz(m)];
}

bool decode_warp(const statement &s, insn &i)
{
    static const std::map<std::string, action> meetings = {
        {"shfl.sync.up.b32", shuffle<UP>},     {"shfl.sync.down.b32", shuffle<DOWN>},
        {"shfl.sync.bfly.b32", shuffle<BFLY>}, {"shfl.sync.idx.b32", shuffle<IDX>},
        {"vote.sync.ballot.b32", ballot},      {"vote.sync.any.pred", vote_any},
        {"vote.sync.all.pred", vote_all},      {"match.any.sync.b32", match_any},
        {"bar.warp.sync", warp_barrier}};
    const auto found = meetings.find(s.op);
    if (found != meetings.end()) {
        i.run = found->second;
        i.kind = MEETING;
        i.unit = s.op == "bar.warp.sync" ? CONTROL : SHARED;
        i.e = s.operands.back().rows[0]; /* the mask is the last operand */
        if (s.op == "bar.warp.sync") return true;
        i.d = s.at(0).rows[0];
        if (!s.at(0).is_immediate) i.d2 = s.at(0).second;
        i.a = s.at(1).rows[0];
        if (s.words[0] != "shfl") return s.operands.size() == 3;
        i.b = s.at(2).rows[0];
        i.c = s.at(3).rows[0];
        return s.operands.size() == 5;
    }
    i.unit = CONTROL;
    i.run = nothing;
    if (s.op == "bar.sync" || s.op == "barrier.sync") {
        if (s.operands.size() != 1 || !s.at(0).is_immediate || s.at(0).number != 0) s.unknown();
        i.kind = BARRIER;
        return true;
    }
    if (s.op == "barrier.cluster.arrive.release" || s.op == "barrier.cluster.wait.acquire") {
        /* nothing runs between the two: to arrive is to wait */
        i.kind = s.has("wait") ? CLUSTER : CONVERGED;
        return true;
    }
    return false;
}

} // namespace mode_ptx
