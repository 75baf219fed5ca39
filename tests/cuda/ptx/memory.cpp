/* memory.cpp - loads, stores and cp.async, each access checked: it lies in an allocation, is aligned, and its block
 * still lives. */
#include "ptx.h"

#include "../emulator/emulator.h"

#include <cstring>

namespace mode_ptx
{

static uintptr_t low, high; /* the allocation of the last access */

void forget_allocations()
{
    low = high = 0;
}

void check_global(warp &w, int lane, uint64_t address, size_t bytes)
{
    if (address < low || address + bytes > high) {
        if (!mode_emu::device_range((const void *)address, &low, &high) || address + bytes > high)
            fault(w, lane, "accesses %zu bytes at %p, which is %s", bytes, (void *)address,
                  address >= low && address < high ? "across the end of an allocation"
                                                   : "in no allocation of the device");
    }
    if (address % bytes) fault(w, lane, "accesses %zu bytes at %p, which is misaligned", bytes, (void *)address);
}

char *shared_at(warp &w, int lane, uint32_t address, size_t bytes, block **owner)
{
    block *b = w.its;
    const uint32_t rank = address >> CLUSTER_SHIFT, at = address & ((1u << CLUSTER_SHIFT) - 1);
    if (rank > b->cluster->size())
        fault(w, lane, "shared address %08x is of block %u of the cluster", address, rank - 1);
    if (rank) b = &(*b->cluster)[rank - 1];
    if (at < SHARED_BASE || at - SHARED_BASE + bytes > b->shared.size())
        fault(w, lane, "accesses %zu bytes at %u of shared memory, of which there are %zu", bytes, at - SHARED_BASE,
              b->shared.size());
    if (bytes && at % bytes)
        fault(w, lane, "accesses %zu bytes at %u of shared memory, which is misaligned", bytes, at);
    if (owner) *owner = b;
    return b->shared.data() + (at - SHARED_BASE);
}

static char *local_at(warp &w, int lane, uint64_t address, size_t bytes)
{
    if (address + bytes > w.f->local_bytes || address % bytes)
        fault(w, lane, "accesses %zu bytes at %llu of local memory, of which there are %zu", bytes,
              (unsigned long long)address, w.f->local_bytes);
    return w.its->local.data() + (size_t)(w.number * WARP + lane) * w.f->local_bytes + address;
}

static const char *parameter_at(warp &w, int lane, uint64_t address, size_t bytes)
{
    if (address + bytes > w.f->parameter_bytes)
        fault(w, lane, "reads %zu bytes at %llu of its parameters, of which there are %zu", bytes,
              (unsigned long long)address, w.f->parameter_bytes);
    return w.its->parameters + address;
}

static char *place_of(warp &w, const insn &i, int lane)
{
    const size_t bytes = (size_t)i.bytes * i.n;
    if (i.space == IN_SHARED) return shared_at(w, lane, w.row<uint32_t>(i.a)[lane] + (uint32_t)i.offset, bytes);
    const uint64_t address = w.row<uint64_t>(i.a)[lane] + (uint64_t)i.offset;
    if (i.space == IN_LOCAL) return local_at(w, lane, address, bytes);
    if (i.space == IN_PARAM) return const_cast<char *>(parameter_at(w, lane, address, bytes)); /* never stored to */
    check_global(w, lane, address, bytes);
    return (char *)address;
}

static void count_access(warp &w, const insn &i, uint32_t lanes)
{
    const size_t bytes = (size_t)i.bytes * i.n;
    if (i.space == IN_GLOBAL) {
        uint64_t address[WARP];
        for (int l = 0; l < WARP; l++) address[l] = w.row<uint64_t>(i.a)[l] + (uint64_t)i.offset;
        count_global(w, address, lanes, bytes);
    } else if (i.space == IN_SHARED) {
        uint32_t address[WARP];
        for (int l = 0; l < WARP; l++) address[l] = w.row<uint32_t>(i.a)[l] + (uint32_t)i.offset;
        count_shared(w, address, lanes, bytes);
    }
}

/* Neighbouring lanes that read the same are one access. */
static void check_races(warp &w, const insn &i, uint32_t lanes)
{
    const size_t bytes = (size_t)i.bytes * i.n;
    const auto address_of = [&](int l) {
        return i.space == IN_SHARED ? w.row<uint32_t>(i.a)[l] + (uint32_t)i.offset
                                    : w.row<uint64_t>(i.a)[l] + (uint64_t)i.offset;
    };
    if (i.space != IN_SHARED && i.space != IN_GLOBAL) return;
    while (lanes) {
        const uint64_t address = address_of(__builtin_ctz(lanes));
        uint32_t same = 0;
        do {
            same |= lanes & -lanes;
            lanes &= lanes - 1;
        } while (!i.writes && lanes && address_of(__builtin_ctz(lanes)) == address);
        if (i.space == IN_SHARED)
            races::touch_shared(w, same, (uint32_t)address, bytes, i.writes);
        else
            races::touch_global(w, same, address, bytes, i.writes);
    }
}

template <typename Cell, typename Element> static void load(warp &w, const insn &i, uint32_t lanes)
{
    if (counting) count_access(w, i, lanes);
    if (checking) {
        for (uint32_t m = lanes; m; m &= m - 1) place_of(w, i, __builtin_ctz(m)); /* is it there at all? */
        check_races(w, i, lanes);
    }
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        Element x[8];
        memcpy(x, place_of(w, i, l), sizeof(Element) * i.n);
        for (int k = 0; k < i.n; k++)
            if (i.list[(size_t)k] != NONE) w.row<Cell>(i.list[(size_t)k])[l] = (Cell)x[k];
    }
}

template <typename Cell, typename Element> static void store(warp &w, const insn &i, uint32_t lanes)
{
    if (counting) count_access(w, i, lanes);
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        Element x[8];
        for (int k = 0; k < i.n; k++) x[k] = (Element)w.row<Cell>(i.list[(size_t)k])[l];
        memcpy(place_of(w, i, l), x, sizeof(Element) * i.n);
    }
    if (checking) check_races(w, i, lanes);
}

/* ---- cp.async: arrives when it is waited for, and not before ---- */

static void copy_async(warp &w, const insn &i, uint32_t lanes)
{
    if (counting) {
        uint64_t from[WARP];
        uint32_t to[WARP];
        for (int l = 0; l < WARP; l++) from[l] = w.row<uint64_t>(i.a)[l], to[l] = w.row<uint32_t>(i.d)[l];
        count_global(w, from, lanes, i.bytes);
        count_shared(w, to, lanes, i.bytes);
    }
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        const uint64_t from = w.row<uint64_t>(i.a)[l];
        const uint32_t taken = i.c == NONE ? i.bytes : w.row<uint32_t>(i.c)[l]; /* the rest is zero */
        const uint32_t to = w.row<uint32_t>(i.d)[l];
        copy c = {shared_at(w, l, to, i.bytes), {}, -1, to, from, taken};
        if (taken > i.bytes) fault(w, l, "copies %u bytes of %d", taken, i.bytes);
        if (from % i.bytes) fault(w, l, "copies from %p, which is misaligned", (void *)from);
        if (taken) {
            check_global(w, l, from, i.bytes);
            memcpy(c.data, (const void *)from, taken);
        }
        if (checking) races::begin_copy(w, l, c);
        memset(c.to, 0xff, i.bytes); /* NaN until then */
        w.copies[l].push_back(c);
    }
}

static void commit_copies(warp &w, const insn &, uint32_t lanes)
{
    if (checking) races::commit_copies();
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        for (copy &c : w.copies[l])
            if (c.group < 0) c.group = w.copy_groups[l];
        w.copy_groups[l]++;
    }
}

/* All but the newest i.offset groups complete. */
static void wait_for_copies(warp &w, const insn &i, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        std::vector<copy> left;
        for (const copy &c : w.copies[l])
            if (c.group >= 0 && c.group < w.copy_groups[l] - (int)i.offset) {
                memcpy(c.to, c.data, i.bytes);
                if (checking) races::end_copy(w, l, c);
            } else
                left.push_back(c);
        w.copies[l].swap(left);
    }
}

static bool decode_copy(const statement &s, insn &i)
{
    i.unit = SHARED;
    if (s.op == "cp.async.commit_group") {
        i.run = commit_copies;
        return true;
    }
    i.bytes = 16;
    if (s.op == "cp.async.wait_group" || s.op == "cp.async.wait_all") {
        i.run = wait_for_copies;
        i.offset = s.op == "cp.async.wait_all" ? 0 : s.at(0).number;
        return true;
    }
    if (s.op != "cp.async.cg.shared.global" || s.at(2).number != 16 || s.at(0).offset || s.at(1).offset) s.unknown();
    i.run = copy_async;
    i.d = s.at(0).rows[0];
    i.a = s.at(1).rows[0];
    if (s.operands.size() > 3) i.c = s.at(3).rows[0];
    return true;
}

/* ---- decoding ---- */

/* The register may be wider than the element: a load extends it, a store takes the low bits. */
template <typename Element> static action of(bool is_load, int width)
{
    if (width == 8) return is_load ? load<uint64_t, Element> : store<uint64_t, Element>;
    return is_load ? load<uint32_t, Element> : store<uint32_t, Element>;
}

static action by_type(const statement &s, const std::string &type, bool is_load, int width)
{
    if (type == "u8" || type == "b8") return of<uint8_t>(is_load, width);
    if (type == "s8") return of<int8_t>(is_load, width);
    if (type == "u16" || type == "b16") return of<uint16_t>(is_load, width);
    if (type == "s16") return of<int16_t>(is_load, width);
    if (type == "u32" || type == "b32" || type == "f32") return of<uint32_t>(is_load, width);
    if (type == "s32") return of<int32_t>(is_load, width);
    if (width == 8 && (type == "u64" || type == "s64" || type == "b64" || type == "f64"))
        return of<uint64_t>(is_load, width);
    s.unknown();
}

bool decode_memory(const statement &s, insn &i)
{
    static const struct {
        const char *word;
        enum space space;
        enum unit unit;
    } spaces[] = {{"global", IN_GLOBAL, GLOBAL},
                  {"shared", IN_SHARED, SHARED},
                  {"local", IN_LOCAL, LOCAL},
                  {"param", IN_PARAM, CONTROL}};
    if (s.words[0] == "cp" && s.words[1] == "async" && !s.has("bulk")) return decode_copy(s, i);
    if (s.words[0] != "ld" && s.words[0] != "st") return false;
    const bool is_load = s.words[0] == "ld";
    bool known = false;
    for (const auto &k : spaces)
        if (s.words[1] == k.word) {
            i.space = k.space;
            i.unit = k.unit;
            known = true;
        }
    /* cache hints between space and type change no result */
    for (size_t k = 2; k + 1 < s.words.size(); k++)
        if (s.words[k] == "v2" || s.words[k] == "v4" || s.words[k] == "v8")
            i.n = (uint8_t)(s.words[k][1] - '0');
        else if (s.words[k] != "nc" && s.words[k] != "cs" && s.words[k] != "cg" && s.words[k] != "ca")
            known = false;
    if (!known || (i.space == IN_PARAM && !is_load)) s.unknown();
    const operand &value = s.at(is_load ? 0 : 1), &address = s.at(is_load ? 1 : 0);
    i.bytes = (uint8_t)(atoi(s.words.back().c_str() + 1) / 8);
    i.run = by_type(s, s.words.back(), is_load, value.is_immediate ? i.bytes : value.width);
    if (!address.is_address || (int)value.rows.size() != i.n) s.unknown();
    i.list = value.rows;
    i.writes = !is_load;
    if (value.is_immediate && i.bytes == 8) i.list[0] = value.second;
    i.a = address.is_immediate && i.space != IN_SHARED ? address.second : address.rows[0];
    i.offset = address.offset;
    return true;
}

} // namespace mode_ptx
