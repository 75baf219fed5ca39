/* ptx.h - kernels as nvcc compiled them: PTX, executed on the host in place of the emulator's C++ (emulator.h), warp by
 * warp.
 *
 * MODE_EMULATOR_PTX=FOLDER: the kernels of common/nn/cuda/X.cu are those of FOLDER/X.ptx (`make cuda-ptx`). What is
 * unsupported, or undefined on a GPU, ends the program with kernel, thread and source line.
 * MODE_EMULATOR_PTX_COUNTS=FILE: what each kernel executed is appended to FILE (counts.cpp).
 * MODE_EMULATOR_PTX_RACES=1: accesses to memory that nothing orders end the program (races.cpp).
 * Source: NVIDIA, "Parallel Thread Execution ISA", 9.0. Nothing is shared with the emulator's own implementation of
 * these instructions, so that one checks the other.
 *
 * Lanes: bit l of a mask is lane l. A register of a warp is a row of 32 lanes in its register file: 4 bytes per lane,
 * 8 for 64-bit types; 16-bit registers use the low half of 4 bytes. A predicate is one 32-bit mask. Immediates and
 * special registers are rows as well, so that every operand is an offset in bytes. */
#ifndef MODE_EMULATOR_PTX_H
#define MODE_EMULATOR_PTX_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace mode_emu
{
struct grid;
}

namespace mode_ptx
{

enum { WARP = 32 };
enum : uint32_t { ALL = 0xffffffffu, NONE = 0xffffffffu };

struct warp;
struct insn;
using action = void (*)(warp &w, const insn &i, uint32_t lanes);

enum kind : uint8_t {
    PLAIN,     /* run, then the next one */
    BRANCH,    /* lanes whose predicate holds go to `target` */
    EXIT,      /* lanes end */
    MEETING,   /* lanes of a mask of their own (operand e) meet: shuffles, votes */
    CONVERGED, /* .aligned: all lanes of the warp that have not ended, together */
    BARRIER,   /* all threads of the block, by whole warps */
    CLUSTER,   /* all threads of the cluster, by whole warps */
    POLL       /* another warp may have to run before this can succeed */
};

/* What an instruction is counted as */
enum unit : uint8_t { FP32, FP64, INTEGER, CONVERT, SPECIAL, TENSOR, SHARED, GLOBAL, LOCAL, CONTROL, UNITS };

enum space : uint8_t { IN_GLOBAL, IN_SHARED, IN_LOCAL, IN_PARAM };

struct insn {
    action run = nullptr;
    enum kind kind = PLAIN;
    enum unit unit = INTEGER;
    enum space space = IN_GLOBAL;
    bool negated = false;        /* the guard */
    bool writes = false;         /* a store */
    bool of_accumulator = false; /* accesses registers that are accumulators of a wgmma, and is none */
    uint8_t bytes = 0, n = 1;    /* of a load or store: per element, elements */
    uint32_t guard = NONE;       /* row of the predicate that guards it */
    uint32_t d = NONE, d2 = NONE, a = NONE, b = NONE, c = NONE, e = NONE;
    uint32_t target = 0;
    int64_t offset = 0;         /* added to an address */
    std::vector<uint32_t> list; /* rows of vector operands, in the order of the text */
    int line = 0, source = 0;   /* of the source; its number in the file; 0: unknown */
    const std::string *text = nullptr;
    mutable uint64_t executed = 0; /* by warps, if they are counted */
};

struct parameter {
    size_t offset, bytes;
};

struct function {
    std::string name, file;
    std::shared_ptr<std::map<int, std::string>> sources; /* of the file's kernels */
    std::vector<insn> code;
    std::vector<parameter> parameters;
    size_t parameter_bytes = 0;
    size_t register_bytes = 0;                            /* per warp */
    std::vector<std::pair<uint32_t, uint64_t>> constants; /* row, + 1 if it has 8 bytes per lane; value */
    std::vector<std::pair<uint32_t, int>> specials;       /* row (4 bytes per lane), enum special */
    size_t shared_bytes = 0;                              /* declared */
    uint32_t dynamic_row = NONE;                          /* row that holds the address of dynamic shared memory */
    size_t local_bytes = 0;                               /* per thread */
    unsigned most_threads = 1024;
    std::vector<std::string> texts;
};

enum special {
    TID_X,
    TID_Y,
    TID_Z,
    NTID_X,
    NTID_Y,
    NTID_Z,
    CTAID_X,
    CTAID_Y,
    CTAID_Z,
    NCTAID_X,
    NCTAID_Y,
    NCTAID_Z,
    LANEID,
    CTARANK
};

/* parse.cpp. All kernels of one file; ends the program with a sentence at what it does not know. */
std::vector<std::unique_ptr<function>> parse(const std::string &path);

/* What the text of an instruction says, before its action is known (decode in the files of instructions) */
struct operand {
    std::vector<uint32_t> rows; /* one, or those of a {list} */
    bool is_list = false, is_address = false;
    int width = 4;      /* of its registers: bytes per lane; 0: predicates */
    int64_t offset = 0; /* of an address */
    int64_t number = 0; /* of an immediate */
    bool is_immediate = false;
    uint32_t second = NONE; /* of d|p */
};
struct statement {
    std::string op;                 /* whole, with its modifiers */
    std::vector<std::string> words; /* op, split at dots */
    std::vector<operand> operands;
    const operand &at(size_t i) const;
    [[noreturn]] void unknown() const;
    bool has(const char *word) const;
    std::string where;
};
/* Each knows some instructions: sets i.run and its operands and returns true. */
bool decode_arithmetic(const statement &s, insn &i); /* arithmetic.cpp */
bool decode_memory(const statement &s, insn &i);     /* memory.cpp */
bool decode_warp(const statement &s, insn &i);       /* collective.cpp */
bool decode_tensor(const statement &s, insn &i);     /* tensor.cpp */

/* arithmetic.cpp. The value of these 16 bits */
float f16_to_float(uint32_t h);
float bf16_to_float(uint32_t h);

/* ---- what runs ---- */

enum : uint32_t {
    SHARED_BASE = 1024,
    CLUSTER_SHIFT = 24
}; /* addresses of shared memory; the first 1 KiB is reserved */

struct block;
struct split { /* lanes of a warp that are at the same instruction */
    uint32_t pc, lanes;
};
struct copy { /* a cp.async that has not completed */
    char *to;
    char data[16];
    int group;        /* -1: not committed */
    uint32_t address; /* of shared memory */
    uint64_t from;
    uint32_t taken;    /* bytes */
    uint32_t time = 0; /* for races.cpp, as is the instruction */
    const insn *by = nullptr;
};
struct accumulator { /* of wgmmas that have not completed: rows of registers, and their values */
    std::vector<uint32_t> rows;
    std::vector<float> values;
};
struct product { /* a wgmma that has not completed */
    const insn *i;
    uint64_t a, b;
    bool add;
    int group;
};
struct warp {
    char *registers;
    const function *f;
    block *its;
    int number; /* in the block */
    uint32_t alive;
    std::vector<split> splits; /* by pc */
    bool at_barrier, at_cluster;
    std::vector<copy> copies[WARP];
    int copy_groups[WARP];
    std::vector<product> products;
    int product_groups;
    std::map<uint32_t, accumulator> accumulators; /* by the first row */
    const insn *now;

    template <typename T> T *row(uint32_t offset)
    {
        return (T *)(registers + offset);
    }
};

struct transfer { /* a bulk copy that has not arrived */
    char *to;
    const char *from;
    uint32_t bytes;
    struct block *at;        /* whose barrier counts it */
    uint32_t barrier, phase; /* in this phase */
};
struct block {
    std::vector<warp> warps;
    std::vector<char> shared; /* from SHARED_BASE on */
    unsigned x, y, z;
    int rank; /* in the cluster */
    std::vector<block> *cluster;
    std::vector<transfer> *transfers;
    std::map<uint32_t, struct mbarrier> barriers;
    const char *parameters;
    std::vector<char> local; /* local memory of all threads */
};
struct mbarrier {
    uint32_t expected; /* arrivals per phase */
    uint32_t pending;  /* arrivals that have not come */
    int64_t bytes;     /* expected and not come; may be negative for a while */
    uint32_t phase;
    int number = -1; /* for races.cpp */
};

/* grid.cpp. The instruction and its place in the source */
std::string where(const function &f, const insn &i);
[[noreturn]] void fault(const warp &w, int lane, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint32_t random_below(uint32_t n);
/* memory.cpp. The host's address of `bytes` at an address of shared memory of w's block or cluster. */
char *shared_at(warp &w, int lane, uint32_t address, size_t bytes, block **owner = nullptr);
void check_global(warp &w, int lane, uint64_t address, size_t bytes);
void forget_allocations(); /* before a kernel: memory may have been freed since the last one */
/* tensor.cpp. One of them arrives, drawn at random; false: there is none. */
bool deliver(std::vector<transfer> &transfers);

/* grid.cpp. The kernel that the host's function stands for, or NULL where PTX is not executed at all; and runs it. */
const function *kernel_of(const void *host);
void run(const function &f, const mode_emu::grid &g, const std::vector<std::string> &arguments);

/* ---- counting ---- */

struct counts {
    uint64_t launches, threads;
    uint64_t issued[UNITS];           /* instructions of warps */
    uint64_t lanes;                   /* lanes of all of them */
    uint64_t sectors, fewest_sectors; /* of 32 bytes; fewest: if the bytes were neighbours */
    uint64_t passes, fewest_passes;   /* over the banks of shared memory */
    uint64_t global_bytes;
};
extern bool counting;
counts &counts_of(const function &f);
void count_global(warp &w, const uint64_t *address, uint32_t lanes, size_t bytes);
void count_shared(warp &w, const uint32_t *address, uint32_t lanes, size_t bytes);

/* ---- races (races.cpp); nothing of it is called unless `checking` ---- */

extern bool checking;
namespace races
{
void open_launch(const function &f, const mode_emu::grid &g);
void open_cluster(std::vector<block> &of, uint64_t number); /* the launch's */
void close_cluster(std::vector<block> &of);
void end_lanes(const warp &w, uint32_t lanes);
/* All of them have arrived. */
void sync_block(const block &b);
void sync_cluster();
void sync_warp(const warp &w, uint32_t lanes);
void fence_proxy(const warp &w, uint32_t lanes);
void fence_barriers(const warp &w, uint32_t lanes);
/* mbarriers: init, which gives it a number; any other use; the arrival of a thread, the end of a phase, a wait that
 * has succeeded */
int open_barrier(warp &w, int lane, uint32_t address);
void use_barrier(warp &w, int lane, uint32_t address);
void release_to(const warp &w, int lane, int barrier, bool is_own_block);
void complete_phase(int barrier);
void acquire_from(const warp &w, int lane, int barrier);
/* Loads and stores; lanes: all of them access all bytes. */
void touch_shared(warp &w, uint32_t lanes, uint32_t address, size_t bytes, bool writes);
void touch_global(warp &w, uint32_t lanes, uint64_t address, size_t bytes, bool writes);
/* cp.async */
void begin_copy(warp &w, int lane, copy &c);
void commit_copies();
void end_copy(warp &w, int lane, const copy &c);
/* cp.async.bulk, to one block; to: with the block's rank */
void bulk_copy(warp &w, int lane, uint32_t to, uint64_t from, size_t bytes, int barrier);
/* wgmma: 16 bytes of an operand; groups; registers */
void product_reads(warp &w, uint32_t address);
void commit_products(const warp &w);
void wait_for_products(const warp &w, size_t left);
void touch_accumulator(const warp &w, const insn &i);
void fence_registers(const warp &w);
void check_registers(const warp &w, const insn &product);
} // namespace races

} // namespace mode_ptx

#endif
