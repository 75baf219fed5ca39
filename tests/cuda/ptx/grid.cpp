/* grid.cpp - blocks, warps and lanes in time.
 *
 * DESIGN: lanes of a warp that are at the same instruction are a split, which executes it at once; a branch divides it,
 * and splits that meet are one again. The split that is furthest behind runs first, as compilers arrange code for, but
 * now and then another one does: independent thread scheduling promises no order. Warps of all blocks of a cluster take
 * turns of a random number of instructions. Clusters run one after the other, in random order.
 * MODE_EMULATOR_ORDER=forward: without any of that randomness. */
#include "ptx.h"

#include "../emulator/emulator.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace mode_ptx
{

static uint64_t random_state = 0x9e3779b97f4a7c15u;

uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16) % n;
}

static bool in_order()
{
    static const char *const order = getenv("MODE_EMULATOR_ORDER");
    return order && strcmp(order, "forward") == 0;
}

void fault(const warp &w, int lane, const char *format, ...)
{
    const block &b = *w.its;
    va_list args;
    va_start(args, format);
    fprintf(stderr, "ptx: kernel %s, block (%u, %u, %u), thread %d: ", w.f->name.c_str(), b.x, b.y, b.z,
            w.number * WARP + lane);
    vfprintf(stderr, format, args);
    va_end(args);
    if (w.now) fprintf(stderr, "\nptx:   at %s", where(*w.f, *w.now).c_str());
    fprintf(stderr, "\n");
    abort();
}

std::string where(const function &f, const insn &i)
{
    const auto found = f.sources->find(i.source);
    const std::string path = found == f.sources->end() ? f.file : found->second;
    const std::string text = i.text->size() > 120 ? i.text->substr(0, 120) + "..." : *i.text;
    return "\"" + text + "\", " + path.substr(path.rfind('/') + 1) + ":" + std::to_string(i.line);
}

/* ---- which kernel ---- */

/* Symbols of the program, by address: name, and the name of the file that it was compiled from. */
using symbols = std::map<uintptr_t, std::pair<std::string, std::string>>;

static uintptr_t base_of_program()
{
    uintptr_t base = 0;
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *to) {
            *(uintptr_t *)to = info->dlpi_addr;
            return 1; /* the first is the program */
        },
        &base);
    return base;
}

static symbols read_symbols()
{
    symbols found;
    std::ifstream in("/proc/self/exe", std::ios::binary);
    const std::string elf((std::istreambuf_iterator<char>(in)), {});
    const auto *head = (const Elf64_Ehdr *)elf.data();
    const auto *sections = (const Elf64_Shdr *)(elf.data() + head->e_shoff);
    for (int k = 0; k < head->e_shnum; k++) {
        if (sections[k].sh_type != SHT_SYMTAB) continue;
        const auto *symbol = (const Elf64_Sym *)(elf.data() + sections[k].sh_offset);
        const char *names = elf.data() + sections[sections[k].sh_link].sh_offset;
        std::string file;
        for (size_t s = 0; s < sections[k].sh_size / sizeof *symbol; s++) {
            const char *name = names + symbol[s].st_name;
            if (ELF64_ST_TYPE(symbol[s].st_info) == STT_FILE) file = name;
            if (ELF64_ST_TYPE(symbol[s].st_info) == STT_FUNC && symbol[s].st_value)
                found[base_of_program() + symbol[s].st_value] = {name, file};
        }
    }
    return found;
}

/* g++ marks a static function in its name, nvcc does not. */
static std::string as_nvcc_names(const std::string &name)
{
    return name.compare(0, 3, "_ZL") == 0 ? "_Z" + name.substr(3) : name;
}

static const function *look_up(const void *host)
{
    static const symbols known = read_symbols();
    /* never freed: counts are printed when the program ends */
    static auto &files = *new std::map<std::string, std::vector<std::unique_ptr<function>>>;
    const auto symbol = known.find((uintptr_t)host);
    if (symbol == known.end()) {
        fprintf(stderr, "ptx: a kernel at %p has no symbol in this program\n", host);
        abort();
    }
    const std::string name = as_nvcc_names(symbol->second.first);
    std::string file = symbol->second.second;
    file = file.substr(0, file.rfind('.'));
    if (!files.count(file)) files[file] = parse(std::string(getenv("MODE_EMULATOR_PTX")) + "/" + file + ".ptx");
    for (const auto &f : files[file])
        if (f->name == name) return f.get();
    fprintf(stderr, "ptx: %s.ptx has no kernel %s\n", file.c_str(), name.c_str());
    abort();
}

const function *kernel_of(const void *host)
{
    static std::map<const void *, const function *> known;
    if (!getenv("MODE_EMULATOR_PTX")) return nullptr;
    const auto found = known.find(host);
    return found != known.end() ? found->second : known[host] = look_up(host);
}

/* ---- one instruction of a split ---- */

static void merge(warp &w)
{
    std::sort(w.splits.begin(), w.splits.end(), [](const split &a, const split &b) { return a.pc < b.pc; });
    size_t n = 0;
    for (const split &s : w.splits) {
        if (!s.lanes) continue;
        if (n && w.splits[n - 1].pc == s.pc)
            w.splits[n - 1].lanes |= s.lanes;
        else
            w.splits[n++] = s;
    }
    w.splits.resize(n);
}

static void count(warp &w, const insn &i, uint32_t lanes)
{
    counts &c = counts_of(*w.f);
    c.issued[i.unit]++;
    i.executed++;
    c.lanes += (uint64_t)__builtin_popcount(lanes);
}

static void end_lanes(warp &w, uint32_t lanes)
{
    for (uint32_t m = lanes; m; m &= m - 1) {
        const int l = __builtin_ctz(m);
        if (!w.copies[l].empty()) fault(w, l, "ends while %zu of its copies are under way", w.copies[l].size());
    }
    if (checking) races::end_lanes(w, lanes);
    w.alive &= ~lanes;
    if (!w.alive && !w.products.empty()) fault(w, 0, "ends while %zu of its products are under way", w.products.size());
}

/* Lanes of a split that can hold their meeting: of one mask, all there. 0: none can yet. */
static uint32_t meeting(warp &w, const insn &i, uint32_t lanes)
{
    const uint32_t *mask = w.row<uint32_t>(i.e);
    for (uint32_t left = lanes; left;) {
        const int first = __builtin_ctz(left);
        const uint32_t here = mask[first] & w.alive;
        if (!(mask[first] >> first & 1)) fault(w, first, "is not in its own mask, %08x", mask[first]);
        if ((here & lanes) == here) {
            for (uint32_t m = here; m; m &= m - 1)
                if (mask[__builtin_ctz(m)] != mask[first])
                    fault(w, __builtin_ctz(m), "has mask %08x, lane %d has %08x", mask[__builtin_ctz(m)], first,
                          mask[first]);
            return here;
        }
        left &= ~mask[first] & ~(1u << first);
    }
    return 0;
}

/* Executes the instruction of one split. False: it has to wait for other lanes or warps. */
static bool step(warp &w, size_t at, bool *yields)
{
    const split s = w.splits[at];
    const insn &i = w.f->code[s.pc];
    uint32_t lanes = s.lanes;
    w.now = &i;
    if (i.guard != NONE) {
        const uint32_t p = *w.row<uint32_t>(i.guard);
        lanes &= i.negated ? ~p : p;
    }
    uint32_t done = s.lanes; /* lanes that go on to the next instruction */
    if (checking && i.of_accumulator && lanes) races::touch_accumulator(w, i);
    switch (i.kind) {
    case PLAIN:
        if (lanes) i.run(w, i, lanes);
        break;
    case POLL:
        i.run(w, i, lanes);
        *yields = true;
        break;
    case BRANCH:
        if (counting) count(w, i, lanes);
        if (lanes == s.lanes)
            w.splits[at].pc = i.target;
        else if (!lanes)
            w.splits[at].pc++;
        else {
            w.splits[at] = {s.pc + 1, s.lanes & ~lanes};
            w.splits.push_back({i.target, lanes});
        }
        if (w.splits.size() > 1) merge(w);
        return true;
    case EXIT:
        end_lanes(w, lanes);
        w.splits[at].lanes &= ~lanes;
        w.splits[at].pc++;
        merge(w);
        return true;
    case MEETING:
        if (lanes != s.lanes)
            fault(w, __builtin_ctz(s.lanes & ~lanes), "does not take part: the instruction has a predicate");
        lanes = done = meeting(w, i, lanes);
        if (!lanes) return false;
        i.run(w, i, lanes);
        break;
    case CONVERGED:
        if (lanes != w.alive) return false;
        if (i.unit == TENSOR && w.alive != ALL)
            fault(w, 0, "a matrix instruction, but only lanes %08x are left", w.alive);
        i.run(w, i, lanes);
        break;
    case BARRIER:
    case CLUSTER:
        if (lanes != w.alive) return false;
        (i.kind == BARRIER ? w.at_barrier : w.at_cluster) = true;
        *yields = true;
        break;
    }
    if (counting) count(w, i, lanes);
    if (done == s.lanes && w.splits.size() == 1) {
        w.splits[at].pc++;
        return true;
    }
    w.splits[at].lanes &= ~done;
    w.splits.push_back({s.pc + 1, done});
    merge(w);
    return true;
}

/* Up to `turns` instructions. False: none could be executed. */
static bool take_turns(warp &w, uint32_t turns)
{
    bool any = false, yields = false;
    for (uint32_t t = 0; t < turns && !w.splits.empty() && !yields; t++) {
        size_t first = 0;
        bool went = false;
        if (w.splits.size() > 1 && !in_order() && random_below(8) == 0) first = random_below((uint32_t)w.splits.size());
        for (size_t k = 0; k < w.splits.size() && !went; k++) went = step(w, (first + k) % w.splits.size(), &yields);
        if (!went) return any;
        any = true;
    }
    return any;
}

/* ---- barriers of blocks and clusters ---- */

static bool is_waiting(const warp &w)
{
    return w.at_barrier || w.at_cluster;
}

static void release(block &b)
{
    for (const warp &w : b.warps)
        if (w.alive && !w.at_barrier) return;
    if (checking) races::sync_block(b);
    for (warp &w : b.warps) w.at_barrier = false;
}

static void release_cluster(std::vector<block> &cluster)
{
    for (const block &b : cluster)
        for (const warp &w : b.warps)
            if (w.alive && !w.at_cluster) return;
    if (checking) races::sync_cluster();
    for (block &b : cluster)
        for (warp &w : b.warps) w.at_cluster = false;
}

/* ---- blocks ---- */

static void fill(warp &w, const function &f, const mode_emu::grid &g)
{
    const dim3 n = g.threads;
    for (const auto &[row, value] : f.constants)
        for (int l = 0; l < WARP; l++)
            if (row & 1)
                w.row<uint64_t>(row & ~1u)[l] = value;
            else
                w.row<uint32_t>(row)[l] = (uint32_t)value;
    for (const auto &[row, what] : f.specials)
        for (int l = 0; l < WARP; l++) {
            const unsigned t = (unsigned)(w.number * WARP + l);
            const unsigned values[] = {
                t % n.x,  t / n.x % n.y, t / n.x / n.y, n.x,        n.y,        n.z,         w.its->x,
                w.its->y, w.its->z,      g.blocks.x,    g.blocks.y, g.blocks.z, (unsigned)l, (unsigned)w.its->rank};
            w.row<uint32_t>(row)[l] = values[what];
        }
}

/* Register files, kept from block to block */
static char *registers_of(size_t number, size_t bytes)
{
    static std::vector<std::pair<std::unique_ptr<char[]>, size_t>> files;
    if (files.size() <= number) files.resize(number + 1);
    auto &[p, has] = files[number];
    if (has < bytes + 64) {
        p.reset(new char[bytes + 64]);
        has = bytes + 64;
        memset(p.get(), 0xff, has);
    }
    return (char *)(((uintptr_t)p.get() + 63) / 64 * 64);
}

/* Declared shared memory, and a gap before what is dynamic: nothing may rely on its alignment. */
static size_t random_gap(const function &f, const mode_emu::grid &g)
{
    const bool has_room = f.dynamic_row != NONE && f.shared_bytes + g.shared < 200 * 1024;
    return (f.shared_bytes + 15) / 16 * 16 + (has_room ? 16 * random_below(64) : 0);
}

/* before: bytes of shared memory before what is dynamic, the same in all blocks of a cluster */
static void open_block(block &b, const function &f, const mode_emu::grid &g, size_t number, size_t before)
{
    const unsigned threads = g.threads.x * g.threads.y * g.threads.z, n = (threads + WARP - 1) / WARP;
    b.shared.assign(before + (f.dynamic_row != NONE ? g.shared : 0), (char)0xff);
    b.local.assign(f.local_bytes * n * WARP, (char)0xff);
    b.warps.resize(n);
    for (unsigned k = 0; k < n; k++) {
        warp &w = b.warps[k];
        w = warp();
        w.f = &f;
        w.its = &b;
        w.number = (int)k;
        w.registers = registers_of(number * 32 + k, f.register_bytes);
        w.alive = threads - k * WARP >= WARP ? (uint32_t)ALL : (1u << (threads - k * WARP)) - 1;
        w.splits.push_back({0, w.alive});
        fill(w, f, g);
        if (f.dynamic_row != NONE)
            for (int l = 0; l < WARP; l++) w.row<uint32_t>(f.dynamic_row)[l] = SHARED_BASE + (uint32_t)before;
    }
}

static void report_deadlock(std::vector<block> &cluster)
{
    int shown = 0;
    for (block &b : cluster)
        for (warp &w : b.warps)
            for (const split &s : w.splits)
                if (shown++ < 8)
                    fprintf(stderr, "ptx:   block (%u, %u, %u), warp %d, lanes %08x of %08x at \"%s\", line %d\n", b.x,
                            b.y, b.z, w.number, s.lanes, w.alive, w.f->code[s.pc].text->c_str(), w.f->code[s.pc].line);
    for (block &b : cluster)
        for (warp &w : b.warps)
            if (w.alive) {
                w.now = nullptr;
                fault(w, __builtin_ctz(w.alive), "deadlock: it waits for others that do not come");
            }
}

static void run_cluster(std::vector<block> &cluster, std::vector<transfer> &transfers)
{
    std::vector<warp *> running;
    for (block &b : cluster)
        for (warp &w : b.warps) running.push_back(&w);
    size_t turn = 0;
    for (size_t stuck = 0; !running.empty();) {
        const size_t k = in_order() ? turn++ % running.size() : random_below((uint32_t)running.size());
        warp &w = *running[k];
        const bool went = !is_waiting(w) && take_turns(w, in_order() ? 4096 : 1 + random_below(256));
        if (!w.alive) running.erase(running.begin() + (ptrdiff_t)k);
        if (is_waiting(w) || !w.alive) {
            release(*w.its);
            release_cluster(cluster);
        }
        const bool came = random_below(4) == 0 && deliver(transfers);
        stuck = went || came ? 0 : stuck + 1;
        if (stuck > 8 * running.size() + 64) { /* drawn often enough that each had its turn */
            bool any = false;
            for (warp *v : running) any |= !is_waiting(*v) && take_turns(*v, 1);
            any |= deliver(transfers);
            if (!any && !running.empty()) report_deadlock(cluster);
            stuck = 0;
        }
    }
    if (!transfers.empty()) {
        warp &w = cluster[0].warps[0];
        fault(w, 0, "its cluster ends while %zu bulk copies are under way", transfers.size());
    }
}

static std::string packed(const function &f, const mode_emu::grid &g, const std::vector<std::string> &arguments)
{
    std::string p(f.parameter_bytes, (char)0xff);
    bool same = arguments.size() == f.parameters.size();
    for (size_t k = 0; same && k < arguments.size(); k++) {
        same = arguments[k].size() == f.parameters[k].bytes;
        if (same) memcpy(&p[f.parameters[k].offset], arguments[k].data(), arguments[k].size());
    }
    if (!same) {
        fprintf(stderr, "ptx: kernel %s takes other parameters in %s than in this program\n", g.name, f.file.c_str());
        abort();
    }
    return p;
}

/* Clusters as they run: all, or with MODE_EMULATOR_ENDS=e the first e and the last e of them (blocks.cpp) */
static std::vector<uint64_t> order_of(uint64_t n)
{
    const char *s = getenv("MODE_EMULATOR_ENDS");
    const uint64_t ends = s ? strtoull(s, nullptr, 10) : n, left_out = n > 2 * ends ? n - 2 * ends : 0;
    std::vector<uint64_t> order(n - left_out);
    for (uint64_t k = 0; k < order.size(); k++) order[k] = k < ends ? k : k + left_out;
    if (!in_order())
        for (uint64_t k = order.size(); k > 1; k--) std::swap(order[k - 1], order[random_below((uint32_t)k)]);
    return order;
}

void run(const function &f, const mode_emu::grid &g, const std::vector<std::string> &arguments)
{
    const std::string parameters = packed(f, g, arguments);
    const unsigned threads = g.threads.x * g.threads.y * g.threads.z;
    const uint64_t n = (uint64_t)g.blocks.x * g.blocks.y * g.blocks.z / g.cluster;
    if (threads > f.most_threads) {
        fprintf(stderr, "ptx: kernel %s: %u threads per block, at most %u\n", g.name, threads, f.most_threads);
        abort();
    }
    if (counting) {
        counts_of(f).launches++;
        counts_of(f).threads += n * g.cluster * threads;
    }
    const std::vector<uint64_t> order = order_of(n);
    std::vector<block> cluster(g.cluster);
    std::vector<transfer> transfers;
    forget_allocations();
    if (checking) races::open_launch(f, g);
    for (uint64_t c : order) {
        const size_t before = random_gap(f, g);
        for (unsigned r = 0; r < g.cluster; r++) {
            const uint64_t k = c * g.cluster + r;
            block &b = cluster[r];
            b.x = (unsigned)(k % g.blocks.x);
            b.y = (unsigned)(k / g.blocks.x % g.blocks.y);
            b.z = (unsigned)(k / g.blocks.x / g.blocks.y);
            b.rank = (int)r;
            b.cluster = &cluster;
            b.transfers = &transfers;
            b.barriers.clear();
            b.parameters = parameters.data();
            open_block(b, f, g, r, before);
        }
        if (checking) races::open_cluster(cluster, c);
        run_cluster(cluster, transfers);
        if (checking) races::close_cluster(cluster);
    }
}

} // namespace mode_ptx
