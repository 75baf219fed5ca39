/* blocks.cpp - the threads of a block, or of a cluster of blocks, as fibers of one host thread.
 *
 * DESIGN: each fiber has its own stack and runs until it must wait: at a block barrier, at a shuffle or vote of its
 * warp, for what hopper.cpp says, or at its end. It then switches directly to the next fiber of the ready queue. The
 * last to arrive at a meeting does its work and makes the others ready. An empty queue with unfinished threads is a
 * deadlock: the report says who waits where. Switches take most of the time, so what they touch is small and close
 * together: a fiber gets its stack when it starts and passes it on when it ends, so that threads that never wait share
 * one.
 *
 * Order: blocks, and threads at the start and after each meeting, run in an order drawn for every launch ("shuffled",
 * the default; MODE_EMULATOR_ORDER=forward or reverse for debugging). After a meeting a warp goes to the front of the
 * queue; in some launches, drawn at random (forward: in all), to its end. A result that depends on the order, such as a
 * read that no barrier separates from its write, differs from run to run.
 *
 * MODE_EMULATOR_ENDS=n, read at every launch: of grids of more than 2 n clusters only the first n and the last n run,
 * for tests of sizes that the host could not finish. */
#include "emulator.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdlib>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace mode_emu
{

enum { WARP = 32, MOST_THREADS = 1024, MOST_BLOCKS = 8, UNUSED = 0xa5 };
enum : size_t {
    STACK = 256 * 1024,
    GUARD = 4096,
    COLOURS = 32,
    COLOUR = 448,
    FIRST_FRAMES = 4096,
    GAP = 128,
    ARENA = SHARED_MOST + 64 * 1024
};

enum state { READY, AT_BARRIER, AT_CLUSTER, AT_WARP, ASLEEP, ENDED };

struct alignas(64) fiber { /* what switches and barriers touch is in one cache line */
    thread_view view;      /* first: `self` points to it */
    enum state state;
#if defined(__x86_64__)
    void *top; /* of the saved stack */
#endif
    char *stack; /* NULL: not started */
    const place *at;
    int number, warp;
    unsigned mask;
    void *payload;
    void (*work)(void *const payload[WARP], unsigned present);
    const void *bed;  /* key that wake() is called with */
    void *fake_stack; /* AddressSanitizer's */
#if !defined(__x86_64__)
    ucontext_t context;
#endif
};

thread_view *self;
dim3 block_size, grid_size;

static const grid *running;
static fiber fibers[MOST_THREADS], outside; /* outside: the context of run_grid */
static int n_threads, n_alive, n_in_block;  /* in the cluster, not yet ended, per block */
static bool stuck;
static int queue[MOST_THREADS]; /* ring buffer of ready fibers */
static unsigned queue_first, queue_count;
static bool in_turn; /* after a meeting, a warp goes to the end of the queue */
static std::vector<char *> free_stacks;

struct variable {
    const void *declaration;
    size_t bytes;
    void *data;
};
struct block {
    int alive, at_barrier;
    int barrier_sum, barrier_came, barrier_result, barrier_of; /* sum and count of the values at the barrier; of the
                                                                * last one */
    char *arena;                                               /* its shared memory */
    size_t arena_used, static_bytes;
    std::vector<variable> variables;
    void *dynamic_memory;
};
static struct block blocks[MOST_BLOCKS]; /* those of the cluster that runs */
static int at_cluster;

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t random_below(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

enum order { SHUFFLED, FORWARD, REVERSE };

static enum order order_of_program()
{
    const char *how = getenv("MODE_EMULATOR_ORDER");
    if (!how || strcmp(how, "shuffled") == 0) return SHUFFLED;
    if (strcmp(how, "forward") == 0) return FORWARD;
    if (strcmp(how, "reverse") == 0) return REVERSE;
    fprintf(stderr, "emulator: MODE_EMULATOR_ORDER is \"%s\"; expected shuffled, forward or reverse\n", how);
    exit(2);
}
static const enum order the_order = order_of_program();

/* The numbers 0 .. n - 1 in the order of this launch */
static void draw_order(std::vector<int> &order, int n)
{
    order.resize((size_t)n);
    for (int i = 0; i < n; i++) order[(size_t)i] = the_order == REVERSE ? n - 1 - i : i;
    if (the_order != SHUFFLED) return;
    for (int i = n - 1; i > 0; i--) std::swap(order[(size_t)i], order[random_below((uint64_t)i + 1)]);
}

static fiber *current()
{
    return (fiber *)self;
}

static struct block *its_block(const fiber *f)
{
    return &blocks[f->view.rank];
}

static void report_place()
{
    const uint3 at = self ? self->block : uint3{0, 0, 0};
    fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u)", running ? running->name : "(none)", at.x, at.y, at.z);
    if (self && self != &outside.view)
        fprintf(stderr, ", thread (%u, %u, %u)", self->thread.x, self->thread.y, self->thread.z);
}

void fault(const char *format, ...)
{
    va_list args;
    report_place();
    fprintf(stderr, ": ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

/* ---- switching ---- */

#if MODE_EMU_ASAN
static const void *host_stack; /* known once a fiber was entered from outside */
static size_t host_bytes;
static bool from_outside;
#endif

static void entered(void *fake_stack)
{
    (void)fake_stack;
#if MODE_EMU_ASAN
    const void *low;
    size_t bytes;
    __sanitizer_finish_switch_fiber(fake_stack, &low, &bytes);
    if (from_outside) {
        host_stack = low;
        host_bytes = bytes;
    }
#endif
}

#if defined(__x86_64__)
extern "C" void mode_emu_switch(void **save, void *to);
asm(R"(
    .text
    .globl mode_emu_switch
    .hidden mode_emu_switch
    .type mode_emu_switch, @function
mode_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size mode_emu_switch, .-mode_emu_switch
)");
#endif

static void prepare(fiber *f);

static void switch_to(fiber *to)
{
    fiber *from = current();
    if (!to->stack && to != &outside) prepare(to);
    if (to == from) return;
    self = &to->view;
#if MODE_EMU_ASAN
    from_outside = from == &outside;
    __sanitizer_start_switch_fiber(from->state == ENDED ? nullptr : &from->fake_stack,
                                   to == &outside ? host_stack : to->stack, to == &outside ? host_bytes : STACK);
#endif
#if defined(__x86_64__)
    mode_emu_switch(&from->top, to->top);
#else
    swapcontext(&from->context, &to->context);
#endif
    entered(from->fake_stack);
}

static void make_ready(int i)
{
    fibers[i].state = READY;
    queue[(queue_first + queue_count++) % MOST_THREADS] = i;
}

static void make_next(int i)
{
    fibers[i].state = READY;
    queue_first = (queue_first - 1) % MOST_THREADS;
    queue[queue_first] = i;
    queue_count++;
}

/* The fiber to run when this one waits or has ended. */
static fiber *next_fiber()
{
    if (queue_count == 0) deliver_late();
    if (queue_count == 0) {
        stuck = n_alive > 0;
        return &outside;
    }
    const int next = queue[queue_first];
    queue_first = (queue_first + 1) % MOST_THREADS;
    queue_count--;
    return &fibers[next];
}

static void go_on()
{
    switch_to(next_fiber());
}

/* ---- meetings ---- */

/* Fibers released by a meeting run in the launch's order; shuffled: forward or backward at random. */
static void release(const int *who, int n, bool ahead)
{
    bool backward = the_order == SHUFFLED ? random_below(2) : the_order == REVERSE;
    for (int i = 0; i < n; i++) {
        const int one = who[backward != ahead ? n - 1 - i : i]; /* make_next reverses */
        if (ahead)
            make_next(one);
        else
            make_ready(one);
    }
}

static bool is_same_operation(const place &a, const place &b)
{
    return a.line == b.line && (a.what == b.what || strcmp(a.what, b.what) == 0) &&
           (a.file == b.file || strcmp(a.file, b.file) == 0);
}

static inline bool same_place(const place *a, const place *b)
{
    return a == b || is_same_operation(*a, *b);
}

/* Releases the barrier of f's block when all its threads that have not ended are there. ending: the caller, f, ends */
static void try_barrier(fiber *f, bool ending)
{
    int who[MOST_THREADS], n = 0;
    const place *first = nullptr;
    struct block *b = its_block(f);
    const int from = f->view.rank * n_in_block;
    if (b->at_barrier == 0 || b->at_barrier < b->alive) return;
    for (int i = from; i < from + n_in_block; i++) {
        fiber *g = &fibers[i];
        if (g->state != AT_BARRIER) continue;
        if (!first) first = g->at;
        if (!same_place(g->at, first))
            fault("threads wait at different barriers: %s at %s:%d and %s at %s:%d", first->what, first->file,
                  first->line, g->at->what, g->at->file, g->at->line);
        if (ending || g != f) who[n++] = i;
    }
    b->barrier_result = b->barrier_sum;
    b->barrier_of = b->barrier_came;
    b->barrier_sum = b->barrier_came = b->at_barrier = 0;
    if (!ending) f->state = READY;
    release(who, n, false);
}

int meet_block(const place &at, int value, bool *all)
{
    fiber *f = current();
    struct block *b = its_block(f);
    f->state = AT_BARRIER;
    f->at = &at;
    b->at_barrier++;
    b->barrier_sum += value;
    b->barrier_came++;
    try_barrier(f, false);
    if (f->state == AT_BARRIER) go_on();
    if (all) *all = b->barrier_result == b->barrier_of;
    return b->barrier_result;
}

static void try_cluster(const fiber *ending)
{
    int who[MOST_THREADS], n = 0;
    if (at_cluster == 0 || at_cluster < n_alive) return;
    at_cluster = 0;
    for (int i = 0; i < n_threads; i++)
        if (fibers[i].state == AT_CLUSTER && (ending || &fibers[i] != current())) who[n++] = i;
    if (!ending) current()->state = READY;
    release(who, n, false);
}

void meet_cluster(const place &at)
{
    fiber *f = current();
    f->state = AT_CLUSTER;
    f->at = &at;
    at_cluster++;
    try_cluster(nullptr);
    if (f->state == AT_CLUSTER) go_on();
}

void sleep_for(const place &at, const void *bed)
{
    fiber *f = current();
    f->state = ASLEEP;
    f->at = &at;
    f->bed = bed;
    go_on();
}

bool is_slept_for(const void *bed)
{
    for (int i = 0; i < n_threads; i++)
        if (fibers[i].state == ASLEEP && fibers[i].bed == bed) return true;
    return false;
}

void let_others_go_on()
{
    make_ready(current()->number);
    go_on();
}

void wake(const void *bed)
{
    int who[MOST_THREADS], n = 0;
    for (int i = 0; i < n_threads; i++)
        if (fibers[i].state == ASLEEP && fibers[i].bed == bed) who[n++] = i;
    release(who, n, false);
}

/* Per warp: lanes that have not ended, and those that wait in a meeting of their warp */
static unsigned alive_lanes[MOST_THREADS / WARP], waiting_lanes[MOST_THREADS / WARP];

unsigned active_lanes()
{
    return alive_lanes[current()->warp];
}

/* All lanes of mask that have not ended, `here`, have arrived: do the work of the meeting. */
static void hold_meeting(int warp, unsigned mask, unsigned here, bool ending)
{
    void *payload[WARP] = {};
    int who[WARP], n = 0;
    const fiber *first = &fibers[warp * WARP + __builtin_ctz(here)];
    for (unsigned left = here; left; left &= left - 1) {
        const int i = __builtin_ctz(left);
        fiber *f = &fibers[warp * WARP + i];
        if (!same_place(f->at, first->at))
            fault("lanes of one warp are at different operations: %s at %s:%d and %s at %s:%d", first->at->what,
                  first->at->file, first->at->line, f->at->what, f->at->file, f->at->line);
        if (f->mask != mask)
            fault("lanes of one warp bring different masks to %s at %s:%d: %08x and %08x", f->at->what, f->at->file,
                  f->at->line, mask, f->mask);
        payload[i] = f->payload;
        if (ending || f != current()) who[n++] = f->number;
    }
    waiting_lanes[warp] &= ~here;
    first->work(payload, here);
    if (!ending) current()->state = READY;
    release(who, n, !in_turn);
}

static inline void try_warp(int warp, unsigned mask, bool ending)
{
    const unsigned here = waiting_lanes[warp] & mask;
    if (here && here == (alive_lanes[warp] & mask)) hold_meeting(warp, mask, here, ending);
}

void meet_warp(const place &at, unsigned mask, void *payload, void (*work)(void *const[32], unsigned))
{
    fiber *f = current();
    f->at = &at;
    f->mask = mask;
    f->payload = payload;
    if (!(mask >> f->view.lane & 1))
        fault("lane %d calls %s at %s:%d with mask %08x, which leaves it out", f->view.lane, at.what, at.file, at.line,
              mask);
    if (f->warp == n_threads / WARP && mask >> (n_threads % WARP))
        fault("%s at %s:%d has mask %08x, but the last warp of this block has %d lanes", at.what, at.file, at.line,
              mask, n_threads % WARP);
    f->state = AT_WARP;
    f->work = work;
    waiting_lanes[f->warp] |= 1u << f->view.lane;
    try_warp(f->warp, mask, false);
    if (f->state == AT_WARP) go_on();
}

/* ---- shared memory ---- */

static void cover(const void *p, size_t bytes, bool usable)
{
    (void)p, (void)bytes, (void)usable;
#if MODE_EMU_ASAN
    if (usable)
        __asan_unpoison_memory_region(p, bytes);
    else
        __asan_poison_memory_region(p, bytes);
#endif
}

static void *take_shared(struct block *b, size_t bytes)
{
    char *p = b->arena + b->arena_used;
    b->arena_used += (bytes + GAP - 1) / GAP * GAP + GAP;
    if (b->arena_used > ARENA) fault("more than %zu bytes of shared memory", (size_t)SHARED_MOST);
    cover(p, bytes, true);
    memset(p, POISON, bytes);
    return p;
}

static void check_shared_gaps(const struct block &b)
{
    if (MODE_EMU_ASAN) return;
    for (const variable &v : b.variables)
        for (size_t i = v.bytes; i < (v.bytes + GAP - 1) / GAP * GAP + GAP; i++)
            if (((const unsigned char *)v.data)[i] != UNUSED)
                fault("wrote behind the end of %zu bytes of shared memory", v.bytes);
}

void *shared_memory(const void *declaration, size_t bytes)
{
    struct block *b = its_block(current());
    for (const variable &v : b->variables)
        if (v.declaration == declaration) return v.data;
    b->static_bytes += bytes;
    if (b->static_bytes > SHARED_DEFAULT)
        fault("declares %zu bytes of shared memory; %zu is the most", b->static_bytes, (size_t)SHARED_DEFAULT);
    const size_t most = running->raised ? shared_most() : (size_t)SHARED_DEFAULT;
    if (b->static_bytes + running->shared > most)
        fault("needs %zu bytes of shared memory, declared and dynamic; %zu is the most",
              b->static_bytes + running->shared, most);
    b->variables.push_back({declaration, bytes, take_shared(b, bytes)});
    return b->variables.back().data;
}

void check_bounds(int threads, int)
{
    if (n_in_block > threads) fault("has %d threads to a block, and __launch_bounds__ says %d", n_in_block, threads);
}

void *dynamic_shared_memory()
{
    return its_block(current())->dynamic_memory;
}

uint32_t shared_offset(const void *p)
{
    const size_t at = (size_t)((const char *)p - its_block(current())->arena);
    if ((const char *)p < its_block(current())->arena || at >= ARENA)
        fault("%p is not in the block's shared memory", p);
    return (uint32_t)at;
}

void *shared_at(uint32_t offset, int block)
{
    if (offset >= ARENA || block < 0 || block * n_in_block >= n_threads)
        fault("no shared memory at %u of block %d of the cluster", offset, block);
    if (blocks[block].alive == 0) fault("block %d of the cluster has ended", block);
    return blocks[block].arena + offset;
}

/* ---- blocks ---- */

/* The running thread has returned from the kernel. */
static void end_thread(fiber *f)
{
    if (f->view.copies) fault("the thread ends while %d of its copies and products are under way", f->view.copies);
    f->state = ENDED;
    n_alive--;
    its_block(f)->alive--;
    alive_lanes[f->warp] &= ~(1u << f->view.lane);
    if (n_alive == 0) return;
    try_barrier(f, true);
    try_cluster(f);
    if (!waiting_lanes[f->warp]) return;
    /* lanes that wait for this one in a meeting of their warp */
    for (int i = 0; i < WARP && f->warp * WARP + i < n_threads; i++) {
        fiber *other = &fibers[f->warp * WARP + i];
        if (other->state == AT_WARP && other->mask >> f->view.lane & 1) try_warp(f->warp, other->mask, true);
    }
}

extern "C" void mode_emu_begin() __attribute__((no_sanitize("address", "undefined"), noreturn));
void mode_emu_begin()
{
    entered(nullptr);
    for (;;) {
        running->body();
        fiber *f = current();
        end_thread(f);
        fiber *next = next_fiber();
        if (next == &outside || next->stack) {
            free_stacks.push_back(f->stack);
            switch_to(next);
            abort();
        }
        next->stack = f->stack; /* a fiber that was not started starts here */
        self = &next->view;
    }
}

static char *take_stack()
{
    if (!free_stacks.empty()) {
        char *p = free_stacks.back();
        free_stacks.pop_back();
        return p;
    }
    char *p = (char *)mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0);
    if (p == MAP_FAILED || mprotect(p, GUARD, PROT_NONE)) {
        perror("emulator: a stack for a thread of a block");
        abort();
    }
    return p + GUARD;
}

/* Stacks start at staggered offsets, so that they do not fall into the same cache sets. */
static size_t stack_bytes(const char *stack)
{
    return STACK - (uintptr_t)stack / (STACK + GUARD) % COLOURS * COLOUR;
}

static void prepare(fiber *f)
{
    f->stack = take_stack();
#if MODE_EMU_ASAN
    /* the fiber that ended here never returned from its last frames */
    __asan_unpoison_memory_region(f->stack + stack_bytes(f->stack) - FIRST_FRAMES, FIRST_FRAMES);
#endif
#if defined(__x86_64__)
    void **top = (void **)(f->stack + stack_bytes(f->stack)) - 2;
    *--top = nullptr; /* return address of mode_emu_begin, which never returns */
    *--top = (void *)mode_emu_begin;
    top -= 6;
    memset(top, 0, 6 * sizeof *top);
    f->top = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = stack_bytes(f->stack);
    f->context.uc_link = nullptr;
    makecontext(&f->context, mode_emu_begin, 0);
#endif
}

static void report_deadlock()
{
    int shown = 0;
    self = &outside.view;
    report_place();
    fprintf(stderr, ": deadlock: %d of %d threads wait for others that do not come\n", n_alive, n_threads);
    for (int i = 0; i < n_threads && shown < 8; i++) {
        const fiber *f = &fibers[i];
        if (f->state == READY || f->state == ENDED) continue;
        if (i > 0 && fibers[i - 1].state == f->state && fibers[i - 1].at->line == f->at->line) continue;
        fprintf(stderr, "emulator:   from thread (%u, %u, %u) on: %s at %s:%d\n", f->view.thread.x, f->view.thread.y,
                f->view.thread.z, f->at->what, f->at->file, f->at->line);
        shown++;
    }
    abort();
}

static void open_block(struct block *b)
{
    b->alive = n_in_block;
    b->at_barrier = b->barrier_sum = b->barrier_came = 0;
    b->variables.clear();
    if (!b->arena) {
        b->arena = (char *)aligned_alloc(1024, ARENA);
        if (!b->arena) fault("no memory for a block's shared memory");
        b->arena_used = ARENA;
    }
    cover(b->arena, b->arena_used, true);
    memset(b->arena, UNUSED, b->arena_used);
    cover(b->arena, ARENA, false);
    b->arena_used = b->static_bytes = 0;
    b->dynamic_memory = running->shared ? take_shared(b, running->shared) : nullptr;
    if (running->shared) b->variables.push_back({&running->shared, running->shared, b->dynamic_memory});
}

/* Runs the blocks of one cluster; most clusters are one block. */
static void run_cluster(const std::vector<int> &order, const std::vector<uint3> &at)
{
    n_in_block = (int)(running->threads.x * running->threads.y * running->threads.z);
    n_threads = n_alive = (int)order.size();
    at_cluster = 0;
    queue_first = queue_count = 0;
    stuck = false;
    for (size_t i = 0; i < at.size(); i++) open_block(&blocks[i]);
    for (int w = 0; w < MOST_THREADS / WARP; w++) alive_lanes[w] = waiting_lanes[w] = 0;
    for (int i = 0, rank = 0; rank < (int)at.size(); rank++) {
        uint3 thread = {0, 0, 0};
        for (int t = 0; t < n_in_block; t++, i++) {
            fiber *f = &fibers[i];
            f->view = {thread, at[(size_t)rank], t % WARP, rank, 0};
            f->stack = nullptr;
            f->fake_stack = nullptr;
            f->number = i;
            f->warp = i / WARP;
            alive_lanes[f->warp] |= 1u << i % WARP;
            if (++thread.x < running->threads.x) continue;
            thread.x = 0;
            if (++thread.y < running->threads.y) continue;
            thread.y = 0;
            thread.z++;
        }
    }
    for (int i : order) make_ready(i);
    self = &outside.view;
    outside.view.block = at[0];
    outside.state = READY;
    go_on();
    if (stuck) report_deadlock();
    end_of_cluster();
    for (size_t i = 0; i < at.size(); i++) check_shared_gaps(blocks[i]);
    self = nullptr;
}

void run_grid(const grid &g)
{
    const grid *before = running;
    if (before) fault("a kernel starts a kernel");
    running = &g;
    block_size = g.threads;
    grid_size = g.blocks;
    static std::vector<int> clusters, threads;
    const uint64_t n = (uint64_t)g.blocks.x * g.blocks.y * g.blocks.z / g.cluster;
    const char *s = getenv("MODE_EMULATOR_ENDS");
    const uint64_t ends = s ? strtoull(s, nullptr, 10) : n, left_out = n > 2 * ends ? n - 2 * ends : 0;
    draw_order(clusters, (int)(n - left_out));
    in_turn = the_order == FORWARD || (the_order == SHUFFLED && random_below(8) == 0);
    draw_order(threads, (int)(g.threads.x * g.threads.y * g.threads.z * g.cluster));
    for (int c : clusters) {
        std::vector<uint3> at;
        const uint64_t first = ((uint64_t)c < ends ? (uint64_t)c : (uint64_t)c + left_out) * g.cluster;
        for (uint64_t i = first; i < first + g.cluster; i++)
            at.push_back({(unsigned)(i % g.blocks.x), (unsigned)(i / g.blocks.x % g.blocks.y),
                          (unsigned)(i / g.blocks.x / g.blocks.y)});
        run_cluster(threads, at);
    }
    running = nullptr;
}

} // namespace mode_emu
