/* NVIDIA driver, libraries and GPUs of this machine. Everything is looked up at run time, so this also works in a
 * program built without CUDA; the constants below are from cuda.h, which NVIDIA keeps stable. */
#include "base/memory.h"
#include "base/str.h"
#include "doctor.h"
#include "nn/look.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CC_MAJOR = 75, CC_MINOR = 76, MAX_DEVICES = 64 };
enum { CUDNN_OLDEST = 91501 }; /* 9.15.1: older versions read out of bounds in attention for some lengths */

struct driver {
    int (*init)(unsigned);
    int (*version)(int *);
    int (*count)(int *);
    int (*device)(int *, int);
    int (*name)(char *, int, int);
    int (*attribute)(int *, int, int);
    int (*total)(size_t *, int);
    int (*retain)(void **, int);
    int (*current)(void *);
    int (*memory)(size_t *, size_t *);
    int (*release)(int);
    int (*explain)(int, const char **);
};

/* *f: a function pointer; false when the library lacks the function */
static bool find(void *lib, const char *name, void *f)
{
    void *p = dlsym(lib, name);
    memcpy(f, &p, sizeof p);
    return p != NULL;
}

static bool load_driver(struct driver *d, void *lib)
{
    return find(lib, "cuInit", &d->init) && find(lib, "cuDriverGetVersion", &d->version) &&
           find(lib, "cuDeviceGetCount", &d->count) && find(lib, "cuDeviceGet", &d->device) &&
           find(lib, "cuDeviceGetName", &d->name) && find(lib, "cuDeviceGetAttribute", &d->attribute) &&
           find(lib, "cuDeviceTotalMem_v2", &d->total) && find(lib, "cuDevicePrimaryCtxRetain", &d->retain) &&
           find(lib, "cuCtxSetCurrent", &d->current) && find(lib, "cuMemGetInfo_v2", &d->memory) &&
           find(lib, "cuDevicePrimaryCtxRelease_v2", &d->release) && find(lib, "cuGetErrorString", &d->explain);
}

static const char *explain(const struct driver *d, int e)
{
    const char *text = NULL;
    return d->explain(e, &text) == 0 && text ? text : "an unknown error";
}

static void look_at_device(int count[], const struct driver *d, int i)
{
    char name[128] = "?", what[16], memory[64] = "memory not known", size[2][MODE_SIZE_TEXT];
    int dev, major = 0, minor = 0, e;
    size_t free_bytes = 0, total = 0;
    void *context = NULL;
    snprintf(what, sizeof what, "gpu %d", i);
    if ((e = d->device(&dev, i)) || (e = d->name(name, sizeof name, dev)) ||
        (e = d->attribute(&major, CC_MAJOR, dev)) || (e = d->attribute(&minor, CC_MINOR, dev)) ||
        (e = d->total(&total, dev))) {
        doctor_say(count, DOCTOR_BAD, what, "%s: does not answer: %s", name, explain(d, e));
        return;
    }
    if ((e = d->retain(&context, dev)) == 0) {
        if (d->current(context) == 0 && d->memory(&free_bytes, &total) == 0)
            snprintf(memory, sizeof memory, "%s of %s free", mode_size_text(size[0], free_bytes),
                     mode_size_text(size[1], total));
        (void)d->current(NULL);
        (void)d->release(dev);
    }
    if (e)
        doctor_say(count, DOCTOR_BAD, what, "%s: cannot be opened: %s. Does another process hold it alone?", name,
                   explain(d, e));
    else if (major < 8)
        doctor_say(count, DOCTOR_WARN, what, "%s, compute capability %d.%d: the kernels here need 8.0 or newer", name,
                   major, minor);
    else
        doctor_say(count, total / 10 > free_bytes ? DOCTOR_WARN : DOCTOR_OK, what, "%s, compute capability %d.%d, %s",
                   name, major, minor, memory);
}

/* ---- libraries ------------------------------------------------------------------------------------------------- */

static void *open_first(const char *const names[])
{
    void *lib = NULL;
    for (int i = 0; names[i] && !lib; i++) lib = dlopen(names[i], RTLD_LAZY | RTLD_LOCAL);
    return lib;
}

static void look_at_cublas(int count[], int cuda_major)
{
    static const char *const names_12[] = {"libcublas.so.12", "libcublas.so.13", NULL}, *const names_13[] = {
                                                                                            "libcublas.so.13",
                                                                                            "libcublas.so.12", NULL};
    const char *const *names = cuda_major == 12 ? names_12 : names_13;
    int (*property)(int, int *), v[3] = {0};
    void *lib = open_first(names);
    if (!lib) {
        doctor_say(count, DOCTOR_BAD, "cublas",
                   "%s or .%d cannot be loaded (%s); install CUDA's libraries, or add their folder to LD_LIBRARY_PATH",
                   names[0], cuda_major == 12 ? 13 : 12, dlerror());
        return;
    }
    if (find(lib, "cublasGetProperty", &property) && !property(0, &v[0]) && !property(1, &v[1]) && !property(2, &v[2]))
        doctor_say(count, DOCTOR_OK, "cublas", "%d.%d.%d", v[0], v[1], v[2]);
    else
        doctor_say(count, DOCTOR_BAD, "cublas", "it does not say its version; is the installation complete?");
    dlclose(lib);
}

static void look_at_cudnn(int count[])
{
    static const char *const names[] = {"libcudnn.so.9", NULL};
    size_t (*version)(void);
    void *lib = open_first(names);
    if (!lib) {
        doctor_say(count, DOCTOR_NONE, "cudnn",
                   "libcudnn.so.9 is not installed: attention is computed by our own kernels");
        return;
    }
    size_t v = find(lib, "cudnnGetVersion", &version) ? version() : 0;
    if (v < CUDNN_OLDEST)
        doctor_say(count, DOCTOR_BAD, "cudnn", "%zu.%zu.%zu is too old: install 9.15.1 or newer, or none", v / 10000,
                   v / 100 % 100, v % 100);
    else
        doctor_say(count, DOCTOR_OK, "cudnn", "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    dlclose(lib);
}

static void look_at_nccl(int count[])
{
    static const char *const names[] = {"libnccl.so.2", NULL};
    int (*version)(int *), v = 0;
    void *lib = open_first(names);
    if (!lib) {
        doctor_say(count, DOCTOR_NONE, "nccl",
                   "libnccl.so.2 is not installed: only several GPUs for one model need it");
        return;
    }
    if (find(lib, "ncclGetVersion", &version) && version(&v) == 0)
        doctor_say(count, DOCTOR_OK, "nccl", "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    else
        doctor_say(count, DOCTOR_BAD, "nccl", "it does not say its version; is the installation complete?");
    dlclose(lib);
}

/* ---- does it compute? ------------------------------------------------------------------------------------------ */

/* Runs in a process of its own, since a broken device may kill it. Writes one line "<verdict> <text>". Memory is freed
 * by its exit. */
static void compute(int out)
{
    struct mode_error err = {0};
    double product, kernel;
    enum mode_status st = mode_gpu_trial(&product, &kernel, &err);
    if (st)
        dprintf(out, "%d %s", st == MODE_E_DEVICE ? DOCTOR_WARN : DOCTOR_BAD, err.text);
    else
        dprintf(out, "%d a GEMM and a kernel differ from the processor's by %.1e and %.1e", DOCTOR_OK, product, kernel);
}

/* The line of `compute`, malloc'd. Must be called before this process opens the driver: forked children cannot use it
 * afterwards. */
static char *try_to_compute(void)
{
    int pipe_fd[2], status = 0;
    struct mode_str s = {0};
    char part[512];
    ssize_t n;
    if (pipe(pipe_fd) != 0) return mode_xasprintf("%d a pipe for a trial cannot be made", DOCTOR_BAD);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(pipe_fd[0]);
        compute(pipe_fd[1]);
        _exit(0);
    }
    close(pipe_fd[1]);
    while (pid > 0 && (n = read(pipe_fd[0], part, sizeof part)) > 0) mode_str_add(&s, part, (size_t)n);
    close(pipe_fd[0]);
    if (pid > 0) waitpid(pid, &status, 0);
    if (pid < 0 || status != 0 || !s.data) {
        mode_str_clear(&s);
        return mode_xasprintf("%d the trial crashed (its last output is above); see the kernel's log for Xid lines",
                              DOCTOR_BAD);
    }
    return s.data;
}

static void driver_name(char out[64])
{
    FILE *f = fopen("/sys/module/nvidia/version", "re");
    if (!f || !fgets(out, 64, f)) snprintf(out, 64, "version not known");
    if (f) fclose(f);
    out[strcspn(out, "\n")] = '\0';
}

void doctor_gpus(int count[DOCTOR_VERDICTS], int cuda_major)
{
    struct driver d;
    char name[64];
    int n = 0, version = 0, e;
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        doctor_say(count, DOCTOR_NONE, "gpu", "no NVIDIA driver here (libcuda.so.1): everything runs on the processor");
        return;
    }
    char *trial = NULL;
    if (!load_driver(&d, lib)) {
        doctor_say(count, DOCTOR_BAD, "gpu", "libcuda.so.1 lacks functions: the driver is too old or incomplete");
        goto out;
    }
    trial = try_to_compute();
    if ((e = d.init(0)) || (e = d.count(&n)) || n == 0) {
        doctor_say(count, DOCTOR_NONE, "gpu", "the driver shows no GPU (%s): everything runs on the processor",
                   e ? explain(&d, e) : "there are 0");
        goto out;
    }
    driver_name(name);
    (void)d.version(&version);
    doctor_say(count, DOCTOR_OK, "driver", "%s, for CUDA up to %d.%d", name, version / 1000, version % 1000 / 10);
    for (int i = 0; i < n && i < MAX_DEVICES; i++) look_at_device(count, &d, i);
    look_at_cublas(count, cuda_major);
    look_at_cudnn(count);
    look_at_nccl(count);
    doctor_say(count, (enum doctor_verdict)(trial[0] - '0'), "computing", "%s", trial + 2);
out:
    free(trial);
    dlclose(lib);
}
