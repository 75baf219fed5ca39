/* streams.cpp - CUDA's streams, events and graphs on the host.
 *
 * DESIGN: work in a stream does not run until somebody waits (on a stream, an event or the device, in a synchronous
 * copy or a free). So a host that reads a result or overwrites an input too early gets wrong numbers every time, not by
 * luck. Then streams run piece by piece, in an order that their events allow. MODE_EMULATOR_STREAMS, read at every
 * wait:
 *   late      the stream waited on; of others only what its events require, at the last moment (default)
 *   shuffled  any piece that can run, at random
 *   3120 ...  of the pieces that can run, that of the stream named first. A new stream gets the smallest free number.
 *             If an event between two streams is missing, the orders that name the dependent one first and the other
 *             last run it too early: all orders of n streams find every missing event.
 * MODE_EMULATOR_EAGER=1 runs work at once, for a debugger.
 * Captured work does not run at the capture, but when its graph is launched and somebody waits, with the pointers of
 * the capture, which must still be valid. A stream that waits on an event of a capturing stream joins the capture, and
 * must be joined back to it before the end. A graph has the streams of its capture, and runs in the same orders. While
 * a thread captures, it may neither allocate, free nor wait.
 * MODE_EMULATOR_CAPTURE=refused: no capture begins; =fails: launches into a capture fail, and so does its end. */
#include "emulator.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

struct piece { /* of a stream's work */
    std::function<void()> work;
    cudaStream_t stream;
    std::vector<std::shared_ptr<piece>> after; /* besides those before it in its stream */
    bool done;
};
using piece_ref = std::shared_ptr<piece>;

struct mode_emu_graph {
    struct step {
        std::function<void()> work;
        size_t lane;
        std::vector<size_t> after;
    };
    std::vector<step> steps; /* in the order of the capture */
    std::vector<int> lanes;  /* numbers of the streams; the capture began in the first */
    bool open, uneven;       /* uneven: its streams differ in priority */
};
using graph_ref = std::shared_ptr<mode_emu_graph>;

struct mode_emu_stream {
    int number, priority;
    std::deque<piece_ref> queue;
    graph_ref capture; /* NULL: none */
    size_t lane;
    std::vector<size_t> last;    /* steps that the next one depends on */
    std::vector<piece_ref> held; /* events that the next piece waits on */
};

struct mode_emu_event {
    piece_ref record;
    graph_ref capture; /* of the last record */
    std::vector<size_t> last;
    double at_ms;
    bool untimed; /* cudaEventDisableTiming */
};

namespace mode_emu
{

static std::vector<cudaStream_t> streams;
static mode_emu_stream null_stream = {-1, 0, {}, nullptr, 0, {}, {}};
static thread_local cudaStream_t captured; /* by this thread: the stream that the capture began in */

[[noreturn]] static void stop(const char *what)
{
    fprintf(stderr, "emulator: %s\n", what);
    abort();
}

void not_in_a_capture(const char *what)
{
    if (!captured) return;
    fprintf(stderr, "emulator: %s while a stream is captured\n", what);
    abort();
}

static bool capture_is(const char *how)
{
    const char *s = getenv("MODE_EMULATOR_CAPTURE");
    return s && strcmp(s, how) == 0;
}

static cudaStream_t of(cudaStream_t s)
{
    return s ? s : &null_stream;
}

bool is_captured(cudaStream_t stream)
{
    return of(stream)->capture != nullptr;
}

bool can_launch(cudaStream_t stream)
{
    return !is_captured(stream) || !capture_is("fails");
}

/* ---- orders ---- */

static uint64_t random_below(uint64_t n)
{
    static uint64_t state = 0x2545f4914f6cdd1du;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % n;
}

static const piece *awaited(const piece &p)
{
    for (const piece_ref &a : p.after)
        if (!a->done) return a.get();
    return nullptr;
}

static bool can_run(cudaStream_t s)
{
    return !s->queue.empty() && !awaited(*s->queue.front());
}

/* The stream whose next piece runs, on the way to a piece of `goal`. */
static cudaStream_t choose(const std::vector<cudaStream_t> &all, cudaStream_t goal)
{
    const char *order = getenv("MODE_EMULATOR_STREAMS");
    std::vector<cudaStream_t> ready;
    if (!order || strcmp(order, "late") == 0) {
        while (const piece *a = awaited(*goal->queue.front())) goal = a->stream;
        return goal;
    }
    for (cudaStream_t s : all)
        if (can_run(s)) ready.push_back(s);
    if (ready.empty()) stop("no stream can go on");
    if (strcmp(order, "shuffled") == 0) return ready[random_below(ready.size())];
    if (strspn(order, "0123456789") != strlen(order)) stop("MODE_EMULATOR_STREAMS: late, shuffled or numbers");
    for (const char *c = order; *c; c++)
        for (cudaStream_t s : ready)
            if (s->number == *c - '0') return s;
    return ready[0];
}

static void move(cudaStream_t s)
{
    piece_ref p = std::move(s->queue.front());
    s->queue.pop_front();
    if (fault(true) == cudaSuccess) p->work();
    p->done = true;
    p->work = nullptr;
    p->after.clear();
}

static std::vector<cudaStream_t> all_streams()
{
    std::vector<cudaStream_t> all = streams;
    all.push_back(&null_stream);
    return all;
}

static void run_until_empty(const std::vector<cudaStream_t> &all, cudaStream_t goal)
{
    if (goal->queue.empty()) return;
    working w;
    while (!goal->queue.empty()) move(choose(all, goal));
}

static void run_until_done(const piece_ref &p)
{
    if (!p || p->done) return;
    working w;
    while (!p->done) move(choose(all_streams(), p->stream));
}

void run_everything()
{
    const std::vector<cudaStream_t> all = all_streams();
    for (cudaStream_t s : all) run_until_empty(all, s);
}

/* ---- work ---- */

static void capture(cudaStream_t s, std::function<void()> work)
{
    s->capture->steps.push_back({std::move(work), s->lane, s->last});
    s->last = {s->capture->steps.size() - 1};
}

static piece_ref put(cudaStream_t s, std::function<void()> work)
{
    auto p = std::make_shared<piece>(piece{std::move(work), s, std::move(s->held), false});
    s->held.clear();
    s->queue.push_back(p);
    return p;
}

void enqueue(cudaStream_t stream, std::function<void()> work)
{
    static const bool eager = getenv("MODE_EMULATOR_EAGER") != nullptr;
    locked l(lock);
    cudaStream_t s = of(stream);
    if (s == &null_stream) not_in_a_capture("the default stream is used");
    if (s->capture) {
        capture(s, std::move(work));
        return;
    }
    if (s == &null_stream) run_everything(); /* the legacy default stream synchronises with all others */
    put(s, std::move(work));
    if (eager || s == &null_stream) run_until_empty(all_streams(), s);
}

static cudaError_t wait(cudaStream_t s)
{
    locked l(lock);
    not_in_a_capture("a stream is waited for");
    if (s->capture) stop("a stream that another thread captures is waited for");
    run_until_empty(all_streams(), s);
    for (const piece_ref &p : s->held) run_until_done(p);
    s->held.clear();
    return fault();
}

static double now_ms()
{
    using namespace std::chrono;
    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

/* ---- graphs ---- */

/* Replays the captured steps, each in its stream. */
static void run_graph(const graph_ref &g)
{
    std::deque<mode_emu_stream> own;
    std::vector<cudaStream_t> all;
    std::vector<piece_ref> put_in;
    for (int number : g->lanes) {
        own.push_back({number, 0, {}, nullptr, 0, {}, {}});
        all.push_back(&own.back());
    }
    for (const auto &step : g->steps) {
        for (size_t i : step.after) all[step.lane]->held.push_back(put_in[i]);
        put_in.push_back(put(all[step.lane], step.work));
    }
    for (cudaStream_t s : all) run_until_empty(all, s);
}

/* Does the next step of the capture's first stream depend on every other step? */
static bool all_joined(const mode_emu_graph &g, const std::vector<size_t> &last)
{
    std::vector<bool> before(g.steps.size());
    for (size_t i : last) before[i] = true;
    for (size_t i = g.steps.size(); i-- > 0;) {
        if (!before[i]) return false;
        for (size_t a : g.steps[i].after) before[a] = true;
    }
    return true;
}

static void leave_capture(const graph_ref &g)
{
    g->open = false;
    for (cudaStream_t s : streams)
        if (s->capture == g) {
            s->capture = nullptr;
            s->last.clear();
        }
}

} // namespace mode_emu

using namespace mode_emu;

extern "C" {

cudaError_t cudaDeviceSynchronize(void)
{
    locked l(lock);
    not_in_a_capture("the device is waited for");
    run_everything();
    return fault();
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return fault();
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned, int priority)
{
    locked l(lock);
    int number = 0;
    auto is_taken = [&](cudaStream_t x) { return x->number == number; };
    while (std::any_of(streams.begin(), streams.end(), is_taken)) number++;
    streams.push_back(*s = new mode_emu_stream{number, priority, {}, nullptr, 0, {}, {}});
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    return cudaStreamCreateWithPriority(s, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
    return cudaStreamCreateWithFlags(s, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    locked l(lock);
    wait(s);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    return wait(of(s));
}

/* A query runs one piece of work, so that polling ends. */
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    locked l(lock);
    cudaStream_t s = of(stream);
    not_in_a_capture("a stream is asked whether it is done");
    if (s->queue.empty()) return cudaSuccess;
    working w;
    move(choose(all_streams(), s));
    return cudaErrorNotReady;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    *e = new mode_emu_event();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    cudaEventCreate(e);
    (*e)->untimed = flags & cudaEventDisableTiming;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    locked l(lock);
    run_everything();
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    locked l(lock);
    cudaStream_t s = of(stream);
    e->capture = s->capture;
    e->last = s->last;
    e->record = s->capture ? nullptr : put(s, [=] { e->at_ms = now_ms(); });
    return cudaSuccess;
}

static bool is_done(cudaEvent_t e)
{
    return !e->record || e->record->done;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    locked l(lock);
    not_in_a_capture("an event is waited for");
    if (e->capture) stop("an event of a capture is waited for by the host");
    run_until_done(e->record);
    return fault();
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    locked l(lock);
    if (is_done(e)) return cudaSuccess;
    working w;
    move(choose(all_streams(), e->record->stream));
    return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    locked l(lock);
    if (from->untimed || to->untimed || !from->record || !to->record) return note(cudaErrorInvalidResourceHandle);
    if (!is_done(from) || !is_done(to)) return note(cudaErrorNotReady);
    *ms = (float)(to->at_ms - from->at_ms);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned)
{
    locked l(lock);
    cudaStream_t s = of(stream);
    if (!e->capture && s->capture && e->record) stop("an event from outside is waited for in a capture");
    if (e->capture) {
        const graph_ref &g = e->capture;
        if (!g->open) stop("an event of a capture that has ended is waited for");
        if (s == &null_stream || (s->capture && s->capture != g)) stop("two captures are mixed");
        if (!s->capture) {
            s->capture = g;
            s->lane = g->lanes.size();
            g->lanes.push_back(s->number);
            g->uneven |= captured && s->priority != captured->priority;
        }
        for (size_t i : e->last)
            if (std::find(s->last.begin(), s->last.end(), i) == s->last.end()) s->last.push_back(i);
    } else if (!is_done(e)) {
        s->held.push_back(e->record);
    }
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, void (*f)(void *), void *data)
{
    enqueue(s, [=] { f(data); });
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status)
{
    locked l(lock);
    *status = is_captured(s) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

/* A thread captures one graph at a time. */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    locked l(lock);
    if (!s || s->capture || captured || capture_is("refused")) return note(cudaErrorStreamCaptureUnsupported);
    s->capture = std::make_shared<mode_emu_graph>(mode_emu_graph{{}, {s->number}, true, false});
    s->lane = 0;
    s->last.clear();
    captured = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    locked l(lock);
    if (!s || !s->capture || captured != s) return note(cudaErrorStreamCaptureUnsupported);
    graph_ref made = s->capture;
    if (!all_joined(*made, s->last)) stop("a stream that was forked in a capture is not joined at its end");
    captured = nullptr;
    leave_capture(made);
    *g = nullptr;
    if (capture_is("fails")) return note(cudaErrorStreamCaptureInvalidated);
    *g = new mode_emu_graph(*made);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t g, unsigned long long flags)
{
    if (!g) return note(cudaErrorInvalidValue);
    if (g->uneven && !(flags & cudaGraphInstantiateFlagUseNodePriority))
        stop("a graph forgets the priorities of its streams: cudaGraphInstantiateFlagUseNodePriority");
    *exec = new mode_emu_graph(*g);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    auto g = std::make_shared<mode_emu_graph>(*exec); /* the graph may be destroyed before it has run */
    enqueue(s, [=] { run_graph(g); });
    return fault();
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy(exec);
}

} // extern "C"
