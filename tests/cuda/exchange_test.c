/* exchange-test [--all] - processes whose collectives run concurrently with the ops: bit-identical to collectives in
 * stream order on one stream, in every order that the streams' events allow; and nothing waits without a dependency.
 * Two processes with an emulated GPU each, which takes the order from MODE_EMULATOR_STREAMS. --all: every kind of tower
 * in five orders, for `make slow`; else in two of them. */
#include "clip_variants.h"
#include "socket_ranks.h"

#include "base/parallel.h"
#include "base/rng.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "nn/ops.h"
#include "optim/sharded.h"
#include "tensor/half.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { RANKS = 2, PAIRS = 6, SIDE = 12, LONGEST = 9, VOCAB = 23, STEPS = 2, MAX_FLOATS = 1 << 15 };
/* Streams by number: the first branch, collectives (a group is opened before a training begins), the second branch, the
 * side stream of each. */
enum { STREAMS_MADE = 5, EXCHANGES = 1 };

struct outcome {
    double loss[STEPS], norm[STEPS];
    float values[MAX_FLOATS], copies[MAX_FLOATS];
};

struct run_options {
    const char *backend, *order;
    int kind;
    enum mode_clip_policy policy;
    int64_t pieces;
    double clip_norm;
    bool streams, in_stream_order;
};

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) == MODE_OK) break;                                                                                  \
        fprintf(stderr, "process %d: %s\n", rank, err.text);                                                           \
        exit(1);                                                                                                       \
    } while (0)

static struct mode_ranks *join(struct mode_backend *be, int rank, const char *place)
{
    const struct mode_meeting_options o = {.rank = rank, .size = RANKS, .place = place, .timeout_s = 300};
    struct mode_meeting *m;
    struct mode_ranks *g;
    struct mode_error err;
    OK(mode_meeting_open(&m, &o, &err));
    OK(mode_backend_ranks(&g, be, &m, &err));
    return g;
}

static void load(struct mode_clip *clip, int rank, int number)
{
    static float pixels[PAIRS * 3 * SIDE * SIDE]; /* all three must live until the step is done */
    static int32_t ids[PAIRS * LONGEST], n_ids[PAIRS];
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 7 + (uint64_t)rank, (uint64_t)number);
    struct mode_error err;
    int32_t *id = ids;
    for (int k = 0; k < PAIRS; k++) {
        n_ids[k] = 2 + (int32_t)mode_rng_below(&r, LONGEST - 1);
        for (int j = 0; j < n_ids[k] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, VOCAB - 1);
        *id++ = VOCAB - 1;
    }
    for (int k = 0; k < PAIRS * 3 * SIDE * SIDE; k++) pixels[k] = (float)mode_rng_normal(&r);
    OK(mode_clip_train_load(clip, pixels, ids, n_ids, PAIRS, &err));
}

static void step(struct mode_clip *clip, struct mode_sharded *s, struct mode_adamw_step *now, int rank)
{
    struct mode_error err;
    OK(mode_clip_train_compute(clip, &err));
    OK(mode_sharded_reduce(s, &err));
    OK(mode_sharded_update(s, now, &err));
    mode_clip_clamp(clip);
}

static void train(struct outcome *o, const struct run_options *w, int rank, const char *place)
{
    static struct mode_ranks_ops in_stream_order;
    struct mode_clip_blocks blocks = {0};
    struct mode_adamw options = {.lr = 3e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2};
    struct mode_adamw_step *now;
    struct mode_sharded *s;
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_error err;
    char *cfg = variant(w->kind);
    size_t n, begun, after, total;
    memset(o, 0, sizeof *o);
    setenv("MODE_EMULATOR_STREAMS", w->order, 1);
    OK(mode_backend_open(&be, w->backend, &err));
    struct mode_ranks *g = join(be, rank, place);
    const struct mode_ranks_ops *concurrent = g->ops;
    in_stream_order = *concurrent;
    in_stream_order.parcels = NULL;
    in_stream_order.made = in_stream_order.begin = NULL;
    in_stream_order.end = NULL;
    if (w->in_stream_order) g->ops = &in_stream_order;
    OK(mode_clip_create(&clip, be, cfg, NULL, 5, &err));
    mode_clip_set_memory(clip, w->pieces ? w->pieces : 1, false);
    blocks.image[w->policy] = blocks.text[w->policy] = 3;
    mode_clip_set_blocks(clip, &blocks);
    mode_clip_set_branches(clip, w->streams);
    mode_clip_set_group(clip, g);
    OK(mode_clip_train_begin(clip, PAIRS, &err));
    OK(mode_adamw_begin(&now, be, &err));
    struct mode_flat flat = mode_clip_flat(clip);
    struct mode_param *p = mode_clip_params(clip, &n);
    MODE_ASSERT(flat.n <= MAX_FLOATS);
    OK(mode_sharded_open(&s, be, g, p, n, &flat, 900, &err));
    OK(mode_sharded_broadcast(s, &err));
    mode_clip_refresh(clip);
    if (!w->in_stream_order) mode_clip_set_made(clip, mode_sharded_made, s);
    options.clip_norm = w->clip_norm;
    mode_backend_room(be, &begun, &total);
    for (int i = 0; i < STEPS; i++) {
        load(clip, rank, i);
        mode_adamw_tell(now, &options, i + 1);
        step(clip, s, now, rank);
        step(clip, s, now, rank); /* without waiting for the first step's weights */
        o->loss[i] = mode_clip_train_loss(clip);
        o->norm[i] = mode_adamw_norm(now);
    }
    mode_backend_sync(be);
    mode_backend_room(be, &after, &total);
    MODE_ASSERT(after == begun); /* no step allocates */
    mode_backend_copy(be, o->values, flat.values, flat.n * sizeof(float));
    char *copies = (char *)o->copies;
    for (size_t i = 0; i < n; i++) {
        mode_backend_copy(be, copies, p[i].operand.data, mode_tensor_bytes(&p[i].operand));
        const float *value = o->values + (mode_f32(&p[i].value) - flat.values);
        for (int64_t k = 0; p[i].operand.dtype == MODE_DTYPE_BF16 && k < mode_tensor_count(&p[i].operand); k++)
            MODE_ASSERT(((const uint16_t *)(const void *)copies)[k] == mode_f32_to_bf16(value[k]));
        copies += mode_tensor_bytes(&p[i].operand);
    }
    mode_backend_free(be, now);
    mode_sharded_close(&s);
    mode_clip_close(&clip);
    g->ops = concurrent;
    mode_ranks_close(&g, true);
    mode_backend_close(&be);
    free(cfg);
}

static struct outcome concurrent, serial;
static bool all_orders_of_kinds;

static int compare(const struct run_options *w, int rank)
{
    bool same = memcmp(&concurrent, &serial, sizeof concurrent) == 0 && serial.loss[0] != serial.loss[1];
    if (!same)
        fprintf(stderr,
                "process %d: %s, tower %d, policy %d, pieces %d, order %s, streams %d, clip %g: losses %.9g %.9g, "
                "in turn %.9g %.9g, weights %s\n",
                rank, w->backend, w->kind, (int)w->policy, (int)w->pieces, w->order, w->streams, w->clip_norm,
                concurrent.loss[0], concurrent.loss[1], serial.loss[0], serial.loss[1],
                memcmp(concurrent.values, serial.values, sizeof serial.values) ? "differ" : "are the same");
    return !same;
}

/* w with streams and concurrent collectives, in these orders, against one stream and all in stream order. */
static int in_orders(struct run_options w, const char *const *orders, size_t n, int rank, const char *place)
{
    w.in_stream_order = true;
    w.order = "late";
    train(&serial, &w, rank, place);
    w.in_stream_order = false;
    for (size_t i = 0; i < n; i++)
        for (int streams = i % 4 > 0; streams < 2; streams++) { /* without branches, fewer orders differ */
            w.order = orders[i];
            w.streams = streams;
            train(&concurrent, &w, rank, place);
            if (compare(&w, rank)) return 1;
        }
    return 0;
}

/* Collectives first with each other stream last, and the reverse: a stream that lacks an event of the other runs too
 * early once. streams_test.c has all orders of the other streams. */
static size_t all_orders(char (*text)[STREAMS_MADE + 1], const char **order)
{
    size_t n = 0;
    for (int first = 0; first < STREAMS_MADE; first++)
        for (int last = 0; last < STREAMS_MADE; last++) {
            int at = 0;
            if (first == last || (first != EXCHANGES && last != EXCHANGES)) continue;
            text[n][at++] = (char)('0' + first);
            for (int i = 0; i < STREAMS_MADE; i++)
                if (i != first && i != last) text[n][at++] = (char)('0' + i);
            text[n][at++] = (char)('0' + last);
            text[n][at] = '\0';
            order[n] = text[n];
            n++;
        }
    return n;
}

static int every_order(int rank, int size, const char *place, void *ctx)
{
    char text[STREAMS_MADE * STREAMS_MADE][STREAMS_MADE + 1];
    const char *order[STREAMS_MADE * STREAMS_MADE];
    size_t n = all_orders(text, order);
    (void)size;
    (void)ctx;
    mode_parallel_set_threads(1);
    int wrong = in_orders((struct run_options){.backend = "cuda", .clip_norm = 0.5}, order, n, rank, place);
    if (wrong) return wrong;
    return in_orders((struct run_options){.backend = "cuda-bf16", .policy = MODE_CLIP_CHECKPOINT}, order, n, rank,
                     place);
}

static int every_kind(int rank, int size, const char *place, void *ctx)
{
    enum { ORDERS = 5 };
    static const char *const orders[2 * ORDERS] = {"late", "10234", "shuffled", "02341", "34201",
                                                   "late", "10234", "shuffled", "02341", "34201"};
    const size_t n = all_orders_of_kinds ? ORDERS : 2;
    int wrong = 0;
    (void)size;
    (void)ctx;
    mode_parallel_set_threads(1);
    for (int kind = 0; kind < VARIANTS; kind++) { /* one kind has a frozen parameter */
        struct run_options w = {
            .backend = kind % 2 ? "cuda-bf16" : "cuda", .kind = kind, .clip_norm = kind % 3 ? 0.5 : 0};
        w.policy = (enum mode_clip_policy)(kind % MODE_CLIP_POLICIES);
        if ((wrong = in_orders(w, orders + kind, n, rank, place))) return wrong; /* VARIANTS is ORDERS: each twice */
    }
    struct run_options w = {.backend = "cuda-bf16", .pieces = 3, .policy = MODE_CLIP_LEAN, .clip_norm = 0.5};
    return in_orders(w, orders, n, rank, place);
}

static void run(rank_fn *fn)
{
    int ended[RANKS];
    run_ranks(ended, RANKS, fn, NULL);
    for (int r = 0; r < RANKS; r++) assert_int_equal(ended[r], 0);
}

static void test_every_order_of_streams_gives_the_same_bytes(void **state)
{
    (void)state;
    run(every_order);
}

static void test_every_tower_and_steps_in_pieces(void **state)
{
    (void)state;
    run(every_kind);
}

/* How many of n values are not x. */
static int others(struct mode_backend *be, const double *at, int n, double x)
{
    double seen[RANKS];
    int wrong = 0;
    MODE_ASSERT(n <= RANKS);
    mode_backend_copy(be, seen, at, (size_t)n * sizeof *seen);
    for (int i = 0; i < n; i++) wrong += seen[i] != x;
    return wrong;
}

/* Values show who runs first: a collective does not wait for ops after those that wrote its input, nor ops for an
 * unrelated collective; but related ones wait. */
static int overtakes(int rank, int size, const char *place, void *ctx)
{
    struct mode_backend *be;
    struct mode_error err;
    void *memory;
    enum { PLACES = 10 };
    int parcel, wrong = 0;
    const double three = 3;
    (void)ctx;
    setenv("MODE_EMULATOR_STREAMS", "1", 1); /* collectives first */
    OK(mode_backend_open(&be, "cuda", &err));
    const int fds = open_fds(); /* a leaked communicator keeps some open */
    struct mode_ranks *g = join(be, rank, place);
    OK(mode_backend_alloc(be, &memory, 8192, &err));
    OK(mode_ranks_parcels(g, 1, &parcel, &err));
    double *in = memory, *out = in + 64;
    struct mode_tensor grad = mode_tensor_1d((char *)memory + 7168, MODE_DTYPE_F32, 4);
    struct mode_tensor own = mode_tensor_1d(in, MODE_DTYPE_F32, 2), got = mode_tensor_1d(out, MODE_DTYPE_F32, 2 * size);
    const struct mode_param p = {.grad = grad};

    mode_backend_copy(be, grad.data, (const float[]){2, 2, 2, 2}, 4 * sizeof(float));
    mode_backend_copy(be, in, &three, sizeof three);
    mode_ranks_made(g, parcel);
    mode_grad_squares(be, in, &p, 1); /* *in = 16 */
    mode_ranks_begin(g, parcel);
    OK(mode_ranks_all_gather(g, out, in, 1, MODE_DTYPE_F64, &err));
    mode_ranks_end(g);
    wrong += others(be, out, size, 3);
    wrong += others(be, in, 1, 16);

    setenv("MODE_EMULATOR_STREAMS", "0", 1); /* ops first */
    mode_backend_copy(be, in, &three, sizeof three);
    mode_ranks_begin(g, parcel);
    OK(mode_ranks_all_gather(g, out, in, 1, MODE_DTYPE_F64, &err));
    mode_ranks_end(g);
    mode_grad_squares(be, in, &p, 1);
    wrong += others(be, out, size, 16);

    mode_backend_copy(be, in, &three, sizeof three);
    mode_ranks_begin(g, parcel);
    OK(mode_ranks_all_gather(g, out, in, 1, MODE_DTYPE_F64, &err));
    mode_ranks_end(g);
    mode_zero(be, &got); /* the output: waits */
    mode_grad_squares(be, in, &p, 1);
    wrong += others(be, out, size, 0);
    wrong += others(be, in, 1, 16);

    mode_backend_copy(be, in, &three, sizeof three);
    mode_ranks_begin(g, parcel);
    OK(mode_ranks_all_gather(g, out, in, 1, MODE_DTYPE_F64, &err));
    mode_ranks_end(g);
    mode_zero(be, &own); /* the input: waits, too */
    wrong += others(be, out, size, 3);
    wrong += others(be, in, 1, 0);

    /* the last row of the gathered output, or of the input to be reduced; then the last of more ranges than are tracked
     * separately */
    struct mode_tensor last = mode_tensor_1d(out + size - 1, MODE_DTYPE_F32, 2);
    const double threes[RANKS] = {3, 3};
    mode_backend_copy(be, in, threes, (size_t)size * sizeof *threes);
    mode_ranks_begin(g, parcel);
    OK(mode_ranks_all_gather(g, out, in, 1, MODE_DTYPE_F64, &err));
    mode_ranks_end(g);
    mode_zero(be, &last);
    wrong += others(be, out, size - 1, 3) + others(be, out + size - 1, 1, 0);
    last.data = in + size - 1;
    mode_ranks_begin(g, parcel);
    OK(mode_ranks_reduce_scatter(g, out, in, 1, MODE_DTYPE_F64, &err));
    mode_ranks_end(g);
    mode_zero(be, &last);
    wrong += others(be, out, 1, 3 * size);
    mode_backend_copy(be, in, threes, (size_t)size * sizeof *threes);
    for (int times = 0; times < 2; times++) { /* the same parcel again before the first is done */
        mode_ranks_begin(g, parcel);
        OK(mode_ranks_all_gather(g, out + 128 * times, in, 1, MODE_DTYPE_F64, &err));
        mode_ranks_end(g);
    }
    last.data = out;
    mode_zero(be, &last);
    wrong += others(be, out, 1, 0);
    double *const behind = out + 64 * PLACES;
    mode_backend_copy(be, behind, &three, sizeof three);
    for (int variant = 0; variant < 4; variant++) { /* ascending or descending addresses, then written or read */
        const double none = 0;
        mode_backend_copy(be, out + 64 * (variant % 2 ? PLACES - 1 : 0), &none, sizeof none);
        mode_ranks_begin(g, parcel);
        for (int i = 0; i < PLACES; i++) {
            last.data = out + 64 * (variant % 2 ? i : PLACES - 1 - i);
            OK(mode_ranks_all_gather(g, last.data, variant % 2 ? in : behind, 1, MODE_DTYPE_F64, &err));
        }
        mode_ranks_end(g);
        const struct mode_tensor z = mode_tensor_2d(last.data, MODE_DTYPE_F32, 1, 2);
        struct mode_tensor y = mode_tensor_2d(behind + 32, MODE_DTYPE_F32, 1, 2);
        float seen[2] = {0, 1};
        if (variant < 2) mode_zero(be, &last);
        if (variant < 2) wrong += others(be, last.data, 1, 0);
        if (variant > 1)
            mode_activate(be, &y, &z, MODE_ACT_TANH); /* of the f32 halves of 3.0, 0 and 2.125, or of zeros */
        if (variant > 1) mode_backend_copy(be, seen, y.data, sizeof seen);
        wrong += seen[1] < 0.9f;
    }

    mode_backend_copy(be, in, &three, sizeof three);
    OK(mode_ranks_all_gather(g, out, in, 1, MODE_DTYPE_F64, &err)); /* in stream order */
    mode_grad_squares(be, in, &p, 1);
    wrong += others(be, out, size, 3);
    mode_backend_free(be, memory);
    mode_ranks_close(&g, true);
    wrong += open_fds() != fds;
    g = join(be, rank, place); /* another group on the same backend */
    mode_ranks_close(&g, true);
    mode_backend_close(&be);
    return wrong;
}

static void test_what_has_nothing_in_common_does_not_wait(void **state)
{
    (void)state;
    run(overtakes);
}

/* Process 1 exits before it has contributed: the wait of process 0 ends, and no result is accepted. */
static int ends_in_the_midst(int rank, int size, const char *place, void *ctx)
{
    struct mode_backend *be;
    struct mode_error err;
    void *memory;
    (void)ctx;
    OK(mode_backend_open(&be, "cuda", &err));
    OK(mode_backend_alloc(be, &memory, (size_t)size * sizeof(double), &err));
    struct mode_ranks *g = join(be, rank, place);
    double *sum = memory, one = 1;
    mode_backend_copy(be, sum, &one, sizeof one);
    OK(mode_ranks_all_reduce(g, sum, 1, MODE_DTYPE_F64, &err));
    mode_backend_sync(be);
    OK(mode_ranks_check(g, &err));
    int wrong = others(be, sum, 1, size);
    char *go = mode_xasprintf("%s.go", place); /* process 1 exits after 0 has accepted the previous result */
    if (rank == 0) close(open(go, O_CREAT | O_WRONLY, 0600));
    while (rank == 1 && unlink(go)) usleep(1000);
    free(go);
    if (rank == 1) _exit(wrong);
    const enum mode_status asked = mode_ranks_all_reduce(g, sum, 1, MODE_DTYPE_F64, &err);
    mode_backend_sync(be); /* returns in either case */
    wrong += asked != MODE_OK && asked != MODE_E_PEER;
    wrong += mode_ranks_check(g, &err) != MODE_E_PEER;
    mode_ranks_close(&g, false);
    mode_backend_free(be, memory);
    mode_backend_close(&be);
    return wrong;
}

static void test_what_was_broken_off_is_not_believed(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) run(ends_in_the_midst);
}

/* How process 1 of three ends, and what the others report. Process 2 is connected to process 0 only, which stays until
 * 2 has its error. */
struct fate {
    enum { NO_GPU, LEAVES, ENDS } what;
    const char *words;
    atomic_bool *heard; /* in memory shared by the processes */
};

static int is_told_of(const struct fate *f, const struct mode_error *err, int rank)
{
    const bool right = err->status == MODE_E_PEER && strstr(err->text, f->words);
    if (!right) fprintf(stderr, "process %d does not say \"%s\": %s\n", rank, f->words, err->text);
    return !right;
}

static int third_is_told(int rank, int size, const char *place, void *ctx)
{
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = place, .timeout_s = 20};
    const struct fate *f = ctx;
    struct mode_backend *be;
    struct mode_meeting *m;
    struct mode_ranks *g;
    struct mode_error err;
    void *sum;
    char *fault = mode_xasprintf("%s.fault", place);
    alarm(20);
    if (rank == 1) setenv("MODE_EMULATOR_FAULT", fault, 1);
    OK(mode_backend_open(&be, "cuda", &err));
    OK(mode_backend_alloc(be, &sum, sizeof(double), &err));
    OK(mode_meeting_open(&m, &o, &err));
    const int fd = rank == 1 && f->what == NO_GPU ? open(fault, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) MODE_ASSERT(write(fd, "999", 3) == 3 && close(fd) == 0);
    const enum mode_status st = mode_backend_ranks(&g, be, &m, &err);
    if (f->what == NO_GPU) _exit(g ? 1 : rank == 1 ? st != MODE_E_DEVICE : is_told_of(f, &err, rank));
    OK(st);
    (void)mode_ranks_all_reduce(g, sum, 1, MODE_DTYPE_F64, &err); /* after it all have begun */
    mode_backend_sync(be);
    if (rank == 1 && f->what == ENDS) _exit(0);
    if (rank == 1) mode_ranks_close(&g, false);
    if (rank == 1) {
        while (!atomic_load(f->heard)) usleep(1000);
        _exit(0);
    }
    (void)mode_ranks_all_reduce(g, sum, 1, MODE_DTYPE_F64, &err);
    mode_backend_sync(be);
    err.status = mode_ranks_check(g, &err);
    const int wrong = is_told_of(f, &err, rank);
    if (rank == 2) atomic_store(f->heard, true);
    while (!atomic_load(f->heard)) usleep(1000);
    mode_ranks_close(&g, false);
    mode_backend_free(be, sum);
    mode_backend_close(&be);
    free(fault);
    return wrong;
}

static void test_all_are_told_of_whom_they_have_no_connection_to(void **state)
{
    struct fate fates[] = {{NO_GPU, "process 1 of 3: backend \"cuda\": a stream cannot be made", NULL},
                           {LEAVES, "process 1 of 3 has broken off", NULL},
                           {ENDS, "process 1 of 3 has ended", NULL}};
    atomic_bool *heard = mmap(NULL, sizeof *heard, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    (void)state;
    assert_true(heard != MAP_FAILED);
    for (size_t i = 0; i < sizeof fates / sizeof *fates; i++) {
        int ended[3];
        fates[i].heard = heard;
        atomic_store(heard, false);
        run_ranks(ended, 3, third_is_told, &fates[i]);
        for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 0);
    }
    munmap(heard, sizeof *heard);
}

int main(int argc, char **argv)
{
    all_orders_of_kinds = argc > 1 && strcmp(argv[1], "--all") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_broken_off_is_not_believed),
        cmocka_unit_test(test_all_are_told_of_whom_they_have_no_connection_to),
        cmocka_unit_test(test_what_has_nothing_in_common_does_not_wait),
        cmocka_unit_test(test_every_order_of_streams_gives_the_same_bytes),
        cmocka_unit_test(test_every_tower_and_steps_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
