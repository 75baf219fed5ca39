/* cudnn-plans [no_driver library] - makes every attention plan of our models for an H100, on a machine without a GPU.
 *
 * cuDNN takes a description of a device in the place of a device: it checks each graph, chooses an engine, and compiles
 * its kernels. Nothing is run, so no number is checked here (tests/ops/test_attention_graph.c does that for the graph).
 * Where there is no driver, the library named on the command line stands in for it. Ends with 1 when a plan is refused,
 * with 77 when there is no cuDNN. */
#include "nn/cuda/cudnn.h"

#include "base/clock.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* An H100 (SXM) in cuDNN's words, from NVIDIA's public tables; %zu: cuDNN's version */
static const char h100[] =
    "{\"schemaVersion\":1,\"cudnnVersion\":%zu,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64]"
    ","
    "\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
    "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":85000000000,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,"
    "\"l2CacheSize\":52428800,\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,"
    "\"deviceName\":\"NVIDIA H100 80GB HBM3\"}";

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

static int one(struct mode__cudnn *dnn, const char *name, struct mode__attention_shape s, bool back, bool same_bytes,
               const char *(*kernel)(void))
{
    struct mode__graph g;
    struct mode__cudnn_plan *plan;
    struct mode_error err;
    double t0 = mode_clock_s();
    s.row = 3 * s.heads * s.head_width;
    s.same_bytes = same_bytes;
    back ? mode__attention_back_graph(&g, &s) : mode__attention_graph(&g, &s);
    enum mode_status st = mode__cudnn_plan(dnn, &plan, &g, same_bytes, &err);
    printf("%s\t%lld %lld %lld %lld\t%s%s\t%.1f s\t%s\n", name, (long long)s.batch, (long long)s.tokens,
           (long long)s.heads, (long long)s.head_width, back ? "back" : "forward", same_bytes ? ", same bytes" : "",
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
    snprintf(device, sizeof device, h100, version());
    if (mode__cudnn_open(&dnn, device, &err)) {
        fprintf(stderr, "cudnn-plans: %s\n", err.text);
        return 1;
    }
    printf("cuDNN %zu, plans for an H100 that is only described\n", mode__cudnn_version(dnn));
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
