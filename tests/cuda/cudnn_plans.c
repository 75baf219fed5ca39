/* cudnn-plans [no_driver library [GPU]] - builds every attention plan of our models, and plans of GEMMs with a fused
 * activation, for a GPU (h100; a100, rtx3090, rtx4090), on a machine without one.
 *
 * cuDNN accepts the description of a device instead of a device: it checks each graph, chooses an engine, and compiles
 * its kernels. Nothing runs, so no result is checked here (tests/ops/test_attention_graph.c does that for the graph). A
 * GEMM's first candidate is built twice, the second time from its engine and knobs alone, and must be the same. Without
 * a driver, the library named on the command line stands in for it. Exits with 1 when a plan is refused, with 77 when
 * there is no cuDNN. */
#include "nn/cuda/attention_graph.h"
#include "nn/cuda/cudnn.h"
#include "nn/cuda/product_graph.h"

#include "base/clock.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* GPUs as cuDNN describes them, from NVIDIA's public tables. */
static const struct gpu {
    const char *key, *name;
    int capability, multiprocessors, shared_optin, blocks, threads; /* the last three per multiprocessor or block */
    long l2, memory, clock, memory_clock, memory_bits;
} gpus[] = {
    {"h100", "NVIDIA H100 80GB HBM3", 90, 132, 232448, 32, 2048, 52428800, 85000000000, 1980000, 2619000, 5120},
    {"a100", "NVIDIA A100-SXM4-80GB", 80, 108, 166912, 32, 2048, 41943040, 85000000000, 1410000, 1593000, 5120},
    {"rtx3090", "NVIDIA GeForce RTX 3090", 86, 82, 101376, 16, 1536, 6291456, 25000000000, 1695000, 9751000, 384},
    {"rtx4090", "NVIDIA GeForce RTX 4090", 89, 128, 101376, 24, 1536, 75497472, 25000000000, 2520000, 10501000, 384},
};

static void describe(char *out, size_t size, const struct gpu *g, size_t cudnn)
{
    snprintf(out, size,
             "{\"schemaVersion\":1,\"cudnnVersion\":%zu,\"maxGridSize\":[2147483647,65535,65535],"
             "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"warpSize\":32,"
             "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
             "\"oversizedSharedMemoryPerBlock\":0,\"smCountOrigin\":0,\"memoryBusWidth\":%ld,"
             "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":%d,"
             "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,\"pciDeviceId\":0,\"isTccDriver\":0,"
             "\"supportCoopLaunch\":1,\"totalGlobalMem\":%ld,\"smClockRateKHz\":%ld,\"memClockRateKHz\":%ld,"
             "\"l2CacheSize\":%ld,\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,\"deviceName\":\"%s\"}",
             cudnn, g->multiprocessors, g->shared_optin, g->memory_bits, g->blocks, g->threads, g->memory, g->clock,
             g->memory_clock, g->l2, 10 * g->capability, g->name);
}

static const struct {
    const char *name;
    struct mode__attention_shape s;
} cases[] = {
    {"B/32 images", {.batch = 1024, .tokens = 50, .heads = 12, .head_width = 64}},
    {"B/16 images", {.batch = 1024, .tokens = 197, .heads = 12, .head_width = 64}},
    {"L/14 images", {.batch = 256, .tokens = 257, .heads = 16, .head_width = 64}},
    {"H/14 images", {.batch = 128, .tokens = 257, .heads = 16, .head_width = 80}},
    {"g/14 images", {.batch = 64, .tokens = 257, .heads = 16, .head_width = 88}},
    {"bigG/14 images", {.batch = 64, .tokens = 257, .heads = 16, .head_width = 104}},
    {"texts, all of 77", {.batch = 1024, .tokens = 77, .heads = 8, .head_width = 64, .causal = true}},
    {"texts, packed", {.batch = 1024, .tokens = 77, .heads = 8, .head_width = 64, .causal = true, .packed = true}},
    {"L/14 texts, packed", {.batch = 333, .tokens = 77, .heads = 12, .head_width = 64, .causal = true, .packed = true}},
    {"BERT, packed", {.batch = 400, .tokens = 128, .heads = 12, .head_width = 64, .packed = true}},
};

/* Rows of images, of packed texts, of one sequence; hidden layers and widths */
static const struct {
    const char *name;
    struct mode__product_shape s;
} products[] = {
    {"B/32 images", {51200, 3072, 768, MODE_ACT_GELU, .back = true}},
    {"B/32 images", {51200, 3072, 768, MODE_ACT_QUICK_GELU, .back = true}},
    {"texts, packed", {22531, 2048, 512, MODE_ACT_GELU, .back = true}},
    {"texts, packed", {22531, 2048, 512, MODE_ACT_QUICK_GELU, .back = true}},
    {"L/14 images", {65792, 4096, 1024, MODE_ACT_QUICK_GELU, .back = true}},
    {"pooled rows", {1, 3072, 768, MODE_ACT_GELU, .back = true}},
    {"B/32 images", {51200, 3072, 768, MODE_ACT_GELU, .keeps = true}},
    {"texts, packed", {22531, 2048, 512, MODE_ACT_QUICK_GELU, .keeps = true}},
    {"B/32 images, no z", {51200, 3072, 768, MODE_ACT_GELU}},
};

static int one_product(struct mode__cudnn *dnn, const char *name, const struct mode__product_shape *s,
                       const char *(*kernel)(void))
{
    struct mode__graph g;
    struct mode__cudnn_plan *plan = NULL, *again = NULL;
    struct mode_error err;
    char first[256] = "";
    bool same = false;
    double t0 = mode_clock_s();
    mode__product_graph(&g, s);
    enum mode_status st = mode__cudnn_plan(dnn, &plan, &g, true, 0, &err);
    if (!st) snprintf(first, sizeof first, "%s", kernel ? kernel() : "");
    double seconds = mode_clock_s() - t0;
    const struct mode__cudnn_choice *choice = st ? NULL : mode__cudnn_plan_choice(plan);
    if (choice && !mode__cudnn_plan_again(dnn, &again, &g, choice, &err))
        same = !kernel || strcmp(first, kernel()) == 0;
    printf("%s\t%lld x %lld, %lld\t%s%s%s\t%.1f s\t%s\n", name, (long long)s->m, (long long)s->n, (long long)s->k,
           s->act == MODE_ACT_GELU ? "GELU" : "QuickGELU", s->back ? ", back" : "", s->keeps ? ", with z" : "", seconds,
           st ? err.text : mode__cudnn_plan_text(plan));
    if (!st)
        printf("\t%zu bytes of scratch, %s, %s\n", mode__cudnn_plan_work(plan), first,
               same     ? "made again"
               : choice ? "NOT THE SAME AGAIN"
                        : "CANNOT BE KEPT");
    mode__cudnn_plan_free(dnn, &again);
    mode__cudnn_plan_free(dnn, &plan);
    fflush(stdout);
    return !same;
}

static int one(struct mode__cudnn *dnn, const char *name, struct mode__attention_shape s, bool back, bool deterministic,
               const char *(*kernel)(void))
{
    struct mode__graph g;
    struct mode__cudnn_plan *plan;
    struct mode_error err;
    double t0 = mode_clock_s();
    s.row = 3 * s.heads * s.head_width;
    s.deterministic = deterministic;
    back ? mode__attention_back_graph(&g, &s) : mode__attention_graph(&g, &s);
    enum mode_status st = mode__cudnn_plan(dnn, &plan, &g, deterministic, 0, &err);
    printf("%s\t%lld %lld %lld %lld\t%s%s\t%.1f s\t%s\n", name, (long long)s.batch, (long long)s.tokens,
           (long long)s.heads, (long long)s.head_width, back ? "back" : "forward", deterministic ? ", same bytes" : "",
           mode_clock_s() - t0, st ? err.text : mode__cudnn_plan_text(plan));
    if (!st) {
        printf("\t%d operations, %zu bytes of scratch%s%s\n", g.n_nodes, mode__cudnn_plan_work(plan),
               kernel ? ", " : "", kernel ? kernel() : "");
        mode__cudnn_plan_free(dnn, &plan);
    }
    fflush(stdout);
    return st != MODE_OK;
}

int main(int argc, char **argv)
{
    char device[1024];
    const char *(*kernel)(void) = NULL;
    struct mode__cudnn *dnn;
    struct mode_error err;
    size_t (*version)(void) = NULL;
    int bad = 0, n = 0;
    if (!dlopen("libcuda.so.1", RTLD_NOW) && argc > 1) {
        void *stand_in = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL), *f;
        if (!stand_in) {
            fprintf(stderr, "cudnn-plans: %s\n", dlerror());
            return 1;
        }
        f = dlsym(stand_in, "no_driver_kernel");
        memcpy(&kernel, &f, sizeof f);
    }
    void *library = dlopen("libcudnn.so.9", RTLD_NOW), *f = library ? dlsym(library, "cudnnGetVersion") : NULL;
    if (!f) {
        fprintf(stderr, "cudnn-plans: skipped, libcudnn.so.9 is not on this machine: %s\n", dlerror());
        return 77;
    }
    memcpy(&version, &f, sizeof f);
    const char *key = argc > 2 ? argv[2] : "h100";
    const struct gpu *gpu = NULL;
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
        if (strcmp(gpus[i].key, key) == 0) gpu = &gpus[i];
    if (!gpu) {
        fprintf(stderr, "cudnn-plans: GPU \"%s\" is unknown; there are h100, a100, rtx3090 and rtx4090\n", key);
        return 2;
    }
    describe(device, sizeof device, gpu, version());
    if (mode__cudnn_open(&dnn, device, &err)) {
        fprintf(stderr, "cudnn-plans: %s\n", err.text);
        return 1;
    }
    printf("cuDNN %zu, plans for a GPU that is only described: %s\n", mode__cudnn_version(dnn), gpu->name);
    for (size_t i = 0; i < sizeof products / sizeof *products; i++, n++)
        bad += one_product(dnn, products[i].name, &products[i].s, kernel);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bad += one(dnn, cases[i].name, cases[i].s, false, true, kernel);
        bad += one(dnn, cases[i].name, cases[i].s, true, true, kernel);
        bad += one(dnn, cases[i].name, cases[i].s, true, false, kernel);
        n += 3;
    }
    printf("%d of %d plans are refused\n", bad, n);
    mode__cudnn_close(&dnn);
    return bad > 0;
}
