#include "nn/backend.h"

#include "base/backend_name.h"
#include "base/parallel.h"
#include "base/str.h"
#include "dist/meeting.h"
#include "nn/backend_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

/* The cpu backend of this name if the processor supports it; "cpu": the best it supports except AMX, which is up to
 * half as fast again as AVX-512 on an otherwise idle core, and slower on a core that is shared (docs/SPEED.md). */
static const struct mode_ops *cpu_ops(const char *name)
{
    bool any = strcmp(name, "cpu") == 0;
#if defined(__x86_64__)
    bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (avx512 && strcmp(name, "cpu-amx") == 0 && mode__cpu_amx_usable()) return &mode__cpu_amx_ops;
    if (avx512 && (any || strcmp(name, "cpu-avx512") == 0)) return &mode__cpu_avx512_ops;
    if (fma && (any || strcmp(name, "cpu-avx2") == 0)) return &mode__cpu_avx2_ops;
#endif
    return any || strcmp(name, "cpu-plain") == 0 ? &mode__cpu_plain_ops : NULL;
}

#define OPS_OF(known, precision, ops, whom)                                                                            \
    if (strcmp(name, known) == 0) return &mode__##ops##_ops;

static const struct mode_ops *ref_ops(const char *name)
{
    MODE_BACKENDS_REF(OPS_OF)
    return NULL;
}

static const struct mode_ops *cuda_ops(const char *name)
{
#if defined(MODE_CUDA)
    MODE_BACKENDS_CUDA(OPS_OF)
#endif
    (void)name;
    return NULL;
}

static const struct mode__device *device_of(const struct mode_ops *ops)
{
#if defined(MODE_CUDA)
    if (ops && strncmp(ops->name, "cuda", 4) == 0) return &mode__cuda_device;
#endif
    (void)ops;
    return NULL;
}

enum mode_status mode_backend_open(struct mode_backend **be, const char *name, struct mode_error *err)
{
    const struct mode_ops *ops = strncmp(name, "cuda", 4) == 0  ? cuda_ops(name)
                                 : strncmp(name, "ref", 3) == 0 ? ref_ops(name)
                                                                : cpu_ops(name);
    *be = NULL;
    if (!mode_is_backend_name(name))
        return MODE_FAIL(err, MODE_E_VALUE, "backend \"%s\" is unknown; expected ref, cpu or cuda", name);
    if (!ops && strncmp(name, "cuda", 4) == 0)
        return MODE_FAIL(err, MODE_E_DEVICE, "backend \"%s\": this program was built without CUDA (MODE_CUDA=ON)",
                         name);
    if (!ops) return MODE_FAIL(err, MODE_E_DEVICE, "backend \"%s\": this processor lacks those instructions", name);
    *be = mode_xcalloc(1, sizeof **be);
    (*be)->ops = ops;
    (*be)->kind = device_of(ops);
    enum mode_status st = (*be)->kind ? (*be)->kind->open(*be, err) : MODE_OK;
    if (st) {
        free(*be);
        *be = NULL;
    }
    return st;
}

void mode_backend_close(struct mode_backend **be)
{
    if (!*be) return;
    for (int i = 0; i < MODE__LANES; i++) mode_backend_free(*be, (*be)->work[i].data);
    if ((*be)->kind) (*be)->kind->close(*be);
    free(*be);
    *be = NULL;
}

bool mode_backend_gpu_is_broken(void)
{
#if defined(MODE_CUDA)
    return mode__cuda_device.is_broken();
#else
    return false;
#endif
}

const char *mode_backend_name(const struct mode_backend *be)
{
    return be->ops->name;
}

void mode_backend_describe(const struct mode_backend *be, char *text, size_t size)
{
    if (be->kind)
        be->kind->describe(be, text, size);
    else
        snprintf(text, size, "%s", mode_backend_name(be));
}

enum mode_dtype mode_backend_activations(const struct mode_backend *be)
{
    return be->ops->activations;
}

bool mode_backend_is_device(const struct mode_backend *be)
{
    return be->kind;
}

void mode_backend_sync(struct mode_backend *be)
{
    if (be->kind) be->kind->sync(be);
}

void mode_backend_measure(struct mode_backend *be, bool on)
{
    if (be->kind) be->kind->measure(be, on, on);
}

void mode_backend_measure_products(struct mode_backend *be, bool on)
{
    if (be->kind) be->kind->measure(be, on, false);
}

char *mode_backend_algorithms(struct mode_backend *be)
{
    return be->kind ? be->kind->algorithms(be) : NULL;
}

enum mode_status mode_backend_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                             struct mode_error *err)
{
    if (be->kind) return be->kind->use_algorithms(be, text, why_not, size, err);
    snprintf(why_not, size, "they are for a GPU; this is %s", mode_backend_name(be));
    return MODE_OK;
}

void mode_backend_narrow(struct mode_backend *be, bool on)
{
    be->narrow.on = on && mode_backend_narrow_work(be, 1, 1, 1) > 0;
}

void mode_backend_narrowed(const struct mode_backend *be, struct mode_backend_narrowed *n)
{
    *n = (struct mode_backend_narrowed){be->narrow.made, be->narrow.left};
}

int64_t mode_backend_narrow_work(const struct mode_backend *be, int64_t m, int64_t n, int64_t k)
{
    bool makes = be->ops == &mode__ref_fp8_ops;
#if defined(MODE_CUDA)
    makes = makes || be->ops == &mode__cuda_fp8_ops;
#endif
    return makes ? mode__fp8_work(m, n, k) : 0;
}

void mode_backend_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx)
{
    if (be->kind)
        be->kind->repeat(be, key, ops, ctx);
    else
        ops(ctx);
}

void mode_backend_record(struct mode_backend *be, bool on)
{
    if (be->kind) be->kind->record(be, on);
}

void mode_backend_repeats(const struct mode_backend *be, struct mode_backend_repeats *r)
{
    *r = (struct mode_backend_repeats){0};
    if (be->kind) be->kind->repeats(be, r);
}

/* Fresh pages: the kernel zeroes them when they are first touched, so that a plan for the longest texts costs only what
 * is used. The page before the memory holds its size. */
enum mode_status mode_backend_alloc(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err)
{
    size_t size = bytes + PAGE;
    char *p = MAP_FAILED;
    *data = NULL;
    if (be->kind) return be->kind->alloc(be, data, bytes, err);
    if (size > bytes) p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return MODE_FAIL(err, MODE_E_MEMORY, "no memory for a model of %zu bytes", bytes);
    (void)madvise(p, size, MADV_HUGEPAGE); /* fewer page faults; harmless where refused */
    memcpy(p, &size, sizeof size);
    *data = p + PAGE;
    return MODE_OK;
}

void mode_backend_free(struct mode_backend *be, void *data)
{
    size_t size;
    if (!data) return;
    if (be->kind) {
        be->kind->free(be, data);
        return;
    }
    memcpy(&size, (char *)data - PAGE, sizeof size);
    (void)munmap((char *)data - PAGE, size);
}

void mode_backend_copy(struct mode_backend *be, void *to, const void *from, size_t bytes)
{
    if (be->kind && bytes > 0)
        be->kind->copy(be, to, from, bytes);
    else if (bytes > 0)
        memcpy(to, from, bytes);
}

enum mode_status mode_backend_share(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err)
{
    return be->kind ? be->kind->share(be, data, bytes, err) : mode_backend_alloc(be, data, bytes, err);
}

void mode_backend_written(struct mode_backend *be, const void *data, size_t bytes)
{
    if (be->kind && bytes > 0) be->kind->written(be, data, bytes);
}

void mode_backend_show(struct mode_backend *be, void *data, size_t bytes)
{
    if (be->kind && bytes > 0) be->kind->show(be, data, bytes);
}

void mode_backend_pin(struct mode_backend *be, void *data, size_t bytes)
{
    if (be->kind) be->kind->pin(data, bytes);
}

void mode_backend_unpin(struct mode_backend *be, void *data)
{
    if (be->kind && data) be->kind->unpin(data);
}

void mode_backend_room(const struct mode_backend *be, size_t *left, size_t *total)
{
    *left = *total = SIZE_MAX;
    if (be->kind) be->kind->room(be, left, total);
}

static enum mode_status reserve(struct mode_backend *be, struct mode__work *work, size_t bytes, struct mode_error *err)
{
    void *data;
    if (bytes <= work->bytes) return MODE_OK;
    enum mode_status st = mode_backend_alloc(be, &data, bytes, err);
    if (st) return st;
    mode_backend_free(be, work->data);
    *work = (struct mode__work){data, bytes};
    return MODE_OK;
}

enum mode_status mode_backend_reserve(struct mode_backend *be, size_t bytes, struct mode_error *err)
{
    return reserve(be, &be->work[be->lane], bytes, err);
}

void *mode__backend_work(struct mode_backend *be, size_t bytes)
{
    struct mode_error err;
    MODE_ASSERT(be->lane != MODE__EXCHANGES && mode_backend_reserve(be, bytes, &err) == MODE_OK);
    return be->work[be->lane].data;
}

enum mode_status mode_backend_branches(struct mode_backend *be, size_t scratch, size_t beside, struct mode_error *err)
{
    enum mode_status st = be->kind ? be->kind->branches(be, err) : MODE_OK;
    for (int i = 1; i < MODE__EXCHANGES && be->kind && !st; i++)
        st = reserve(be, &be->work[i], i < MODE_BRANCHES ? scratch : beside, err);
    return st;
}

size_t mode_backend_branches_bytes(const struct mode_backend *be, size_t scratch, size_t beside)
{
    return be->kind ? be->kind->branches_bytes + (MODE_BRANCHES - 1) * scratch + MODE_BRANCHES * beside : 0;
}

void mode_backend_fork(struct mode_backend *be)
{
    if (be->kind) be->kind->fork(be);
}

void mode_backend_branch(struct mode_backend *be, int i)
{
    MODE_ASSERT(i >= 0 && i < MODE_BRANCHES);
    if (be->kind) be->kind->branch(be, i);
}

void mode_backend_join(struct mode_backend *be)
{
    if (be->kind) be->kind->join(be);
}

enum mode_status mode_backend_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting **m,
                                    struct mode_error *err)
{
    struct mode_meeting *taken = *m;
    *g = NULL;
    *m = NULL;
    if (be->kind) return be->kind->ranks(g, be, taken, err);
    mode_meeting_close(&taken);
    return MODE_FAIL(err, MODE_E_DEVICE, "backend \"%s\": several processes train one model on GPUs only, one each",
                     be->ops->name);
}

void mode_backend_profile(struct mode_backend *be, bool on)
{
    be->profile = on;
    if (be->kind) be->kind->clock_read(be);
    memset(be->time, 0, sizeof be->time);
}

void mode_backend_profile_print(struct mode_backend *be, FILE *out)
{
    static const char *const names[MODE__N_OPS] = {
#define X(name) #name,
        MODE__OP_LIST(X)
#undef X
    };
    double total = 0;
    if (be->kind) be->kind->clock_read(be);
    bool done[MODE__N_OPS] = {false};
    for (int i = 0; i < MODE__N_OPS; i++) total += be->time[i].seconds;
    fprintf(out, "%-18s %8s %10s %6s %9s %8s%s   (%s, %d threads)\n", "op", "calls", "seconds", "share", "GFLOP/s",
            "GB/s", be->kind ? " products" : "", be->ops->name, mode_parallel_threads());
    for (int n = 0; n < MODE__N_OPS; n++) {
        int top = -1;
        for (int i = 0; i < MODE__N_OPS; i++)
            if (!done[i] && (top < 0 || be->time[i].seconds > be->time[top].seconds)) top = i;
        done[top] = true;
        const struct mode__op_time *t = &be->time[top];
        if (t->calls == 0) continue;
        fprintf(out, "%-18s %8ld %10.4f %5.1f%% %9.1f %8.1f", names[top], t->calls, t->seconds,
                100.0 * t->seconds / total, t->flops / t->seconds * 1e-9, t->bytes / t->seconds * 1e-9);
        if (t->products > 0) fprintf(out, " %7.1f%%", 100.0 * t->products / t->seconds); /* of the op's seconds */
        fprintf(out, "\n");
    }
    fprintf(out, "%-18s %8s %10.4f\n", "all", "", total);
    if (be->kind) be->kind->note(be, out);
}

void mode_backend_profile_sums(struct mode_backend *be, struct mode_backend_sums *sums)
{
    *sums = (struct mode_backend_sums){0};
    if (be->kind) be->kind->clock_read(be);
    for (int i = 0; i < MODE__N_OPS; i++) {
        bool product = i == MODE__OP_linear || i == MODE__OP_linear_back || i == MODE__OP_project ||
                       i == MODE__OP_project_back;
        bool attention = i == MODE__OP_attention || i == MODE__OP_attention_back;
        const struct mode__op_time *t = &be->time[i];
        const double products = be->kind ? t->products : product ? t->seconds : 0;
        sums->products += products;
        *(attention ? &sums->attention : &sums->rest) += t->seconds - products;
        if (product || attention || i == MODE__OP_contrastive) sums->flops += be->time[i].flops;
    }
}
