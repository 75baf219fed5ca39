/* runtime.cpp - CUDA's runtime on the host: memory of four kinds, launches, copies. Streams are in streams.cpp.
 *
 * Fresh memory is NaN, except in allocations of 1 GiB and more. The host may access cudaMalloc's memory only while the
 * work of a stream runs (a kernel, a copy, a library call): any other access ends with a message and SIGSEGV, or under
 * AddressSanitizer, which tracks every byte itself, with its report. MODE_EMULATOR_MEMORY: bytes of device memory
 * (default 8 GiB).
 *
 * MODE_EMULATOR_FAULT: a path. A process that finds a file there removes it, and its GPU has failed with the error
 * whose number is in the file: no more work runs, and every call returns the error. -9: the process is killed by signal
 * 9. The file may go on to say which process fails and when, without a clock: a word (the process's first argument, or
 * PROGRAM:ARGUMENT, or * for any); the number of pieces of work that its streams begin before it takes the file; a path
 * that must exist before the first of them is counted. */
#include "emulator.h"

#include "../ptx/ptx.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace mode_emu
{

enum : size_t {
    PAGE = 65536, /* the largest page size of any system */
    EDGE = 256,   /* guard bytes before and after an allocation */
    LARGE_PAGE = 2 << 20,
    UNTOUCHED = 1 << 30,   /* larger allocations are not filled, so that untouched pages take no memory */
    SPARE_MOST = 128 << 20 /* bytes of freed pages kept for reuse */
};

struct allocation {
    size_t bytes;
    enum cudaMemoryType type;
    char *base;    /* NULL: registered host memory */
    size_t mapped; /* bytes mapped at base; 0: it is from the allocator */
};

std::recursive_mutex lock;
static std::map<uintptr_t, allocation> allocations;
static std::map<const void *, size_t> shared_limits; /* of kernels that opted in */
static std::set<const void *> loaded;                /* kernels launched outside of a capture */
static size_t used_bytes;
static cudaError_t last_error;
static int depth; /* > 0: work of a stream runs, device memory is accessible */

static size_t total_bytes()
{
    const char *s = getenv("MODE_EMULATOR_MEMORY");
    return s ? strtoull(s, nullptr, 10) : (size_t)8 << 30;
}

static bool is_this_process(const std::string &word)
{
    std::string program, argument;
    std::ifstream f("/proc/self/cmdline");
    std::getline(f, program, '\0');
    std::getline(f, argument, '\0');
    return word == "*" || word == argument || word == program.substr(program.rfind('/') + 1) + ":" + argument;
}

cudaError_t fault(bool is_work)
{
    static const char *const path = getenv("MODE_EMULATOR_FAULT");
    static cudaError_t failed;
    static long begun; /* pieces of work since the file appeared */
    int number = 0;
    long before = 0;
    char word[64] = "*", first[512] = "";
    if (failed != cudaSuccess || !path) return failed;
    FILE *f = fopen(path, "r");
    if (!f) {
        begun = 0;
        return cudaSuccess;
    }
    int n = fscanf(f, "%d %63s %ld %511s", &number, word, &before, first);
    fclose(f);
    if (n < 1 || !is_this_process(word) || (*first && access(first, F_OK) != 0)) return cudaSuccess;
    begun += is_work;
    if (begun <= before && before > 0) return cudaSuccess;
    if (unlink(path) != 0) return cudaSuccess; /* another process took it */
    if (number < 0) raise(-number);
    return failed = (cudaError_t)number;
}

cudaError_t fault_or(cudaError_t e)
{
    cudaError_t failed = fault();
    return failed != cudaSuccess ? failed : e;
}

cudaError_t note(cudaError_t e)
{
    if (e != cudaSuccess) last_error = e;
    return e;
}

/* ---- memory ---- */

/* Makes device memory accessible, or not. */
static void open_device_memory(bool open)
{
    for (const auto &[p, a] : allocations) {
        if (a.type != cudaMemoryTypeDevice) continue;
#if MODE_EMU_ASAN
        if (open)
            __asan_unpoison_memory_region((void *)p, a.bytes);
        else
            __asan_poison_memory_region((void *)p, a.bytes);
#else
        if (mprotect(a.base, a.mapped, open ? PROT_READ | PROT_WRITE : PROT_NONE)) {
            perror("emulator: memory of the device cannot be opened and closed");
            abort();
        }
#endif
    }
}

#if !MODE_EMU_ASAN
/* Explains a SIGSEGV on device memory, then leaves it to the previous handler. */
static struct sigaction before;

static void on_fault(int number, siginfo_t *info, void *context)
{
    static const char sentence[] = "emulator: the host touches memory of the device\n";
    const char *at = (const char *)info->si_addr;
    for (const auto &[p, a] : allocations)
        if (a.mapped && depth == 0 && at >= a.base && at < a.base + a.mapped)
            (void)!write(STDERR_FILENO, sentence, sizeof sentence - 1);
    (void)context;
    (void)number;
    (void)sigaction(SIGSEGV, &before, nullptr); /* the access is repeated and faults again */
}

static void watch_faults()
{
    static bool watched;
    struct sigaction action = {};
    if (watched) return;
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    watched = sigaction(SIGSEGV, &action, &before) == 0;
}
#endif

/* Freed pages, inaccessible. Reuse saves the zeroing of fresh ones by the operating system. */
static std::multimap<size_t, char *> spare;
static size_t spare_bytes;

static char *take_spare(size_t bytes)
{
    auto it = spare.find(bytes);
    if (it == spare.end()) return nullptr;
    char *p = it->second;
    if (mprotect(p, bytes, PROT_READ | PROT_WRITE)) return nullptr;
    spare.erase(it);
    spare_bytes -= bytes;
    return p;
}

static void give_pages_back(char *p, size_t bytes)
{
    if (bytes > SPARE_MOST - spare_bytes || mprotect(p, bytes, PROT_NONE)) {
        (void)munmap(p, bytes);
        return;
    }
    spare.emplace(bytes, p);
    spare_bytes += bytes;
}

/* Device memory gets pages of its own; the rest comes from the allocator, aligned to 256 bytes. */
static bool take_bytes(allocation *a, size_t bytes)
{
#if !MODE_EMU_ASAN
    if (a->type == cudaMemoryTypeDevice) {
        const bool large = bytes >= LARGE_PAGE / 8; /* fewer pages to protect and unprotect */
        if (large) bytes = (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
        a->mapped = bytes;
        if ((a->base = take_spare(bytes))) return true;
        watch_faults();
        const size_t more = large ? (size_t)LARGE_PAGE : 0;
        char *p = (char *)mmap(nullptr, bytes + more, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return false;
        if (large) {
            const size_t before = LARGE_PAGE - (uintptr_t)p % LARGE_PAGE;
            (void)munmap(p, before);
            if (before < more) (void)munmap(p + before + bytes, more - before);
            p += before;
            (void)madvise(p, bytes, MADV_HUGEPAGE);
        }
        a->base = p;
        return true;
    }
#endif
    return posix_memalign((void **)&a->base, EDGE, bytes) == 0;
}

working::working()
{
    if (depth++ == 0) open_device_memory(true);
}

working::~working()
{
    if (--depth == 0) open_device_memory(false);
}

static const std::pair<const uintptr_t, allocation> *find(const void *p)
{
    auto it = allocations.upper_bound((uintptr_t)p);
    if (it == allocations.begin()) return nullptr;
    --it;
    /* one past the end is a valid pointer */
    return (uintptr_t)p <= it->first + it->second.bytes ? &*it : nullptr;
}

static bool is_device(const void *p)
{
    const auto *a = find(p);
    return a && a->second.type != cudaMemoryTypeHost;
}

bool device_range(const void *p, uintptr_t *low, uintptr_t *high)
{
    const auto *a = find(p);
    if (!a || a->second.type == cudaMemoryTypeHost || (uintptr_t)p >= a->first + a->second.bytes) return false;
    *low = a->first;
    *high = a->first + a->second.bytes;
    return true;
}

static cudaError_t take(void **p, size_t bytes, enum cudaMemoryType type)
{
    locked l(lock);
    not_in_a_capture("memory is taken");
    *p = nullptr;
    if (fault() != cudaSuccess) return fault();
    if (type == cudaMemoryTypeDevice && bytes > total_bytes() - std::min(total_bytes(), used_bytes))
        return note(cudaErrorMemoryAllocation);
    if (bytes == 0) return cudaSuccess;
    allocation a = {bytes, type, nullptr, 0};
    size_t edge = MODE_EMU_ASAN ? 0 : (size_t)EDGE; /* AddressSanitizer has its own guard zones */
    if (!take_bytes(&a, bytes + 2 * edge)) return note(cudaErrorMemoryAllocation);
    char *data = a.base + edge;
    memset(a.base, 0x5a, edge);
    memset(data + bytes, 0x5a, edge);
    if (bytes < UNTOUCHED) memset(data, POISON, bytes);
    if (type != cudaMemoryTypeHost) used_bytes += bytes;
    allocations[(uintptr_t)data] = a;
    if (depth == 0) open_device_memory(false);
    *p = data;
    return cudaSuccess;
}

static void give_back(void *p, const allocation &a)
{
    working w;
#if MODE_EMU_ASAN
    __asan_unpoison_memory_region(p, a.bytes);
#else
    for (size_t i = 0; i < EDGE; i++)
        if (a.base[i] != 0x5a || ((char *)p)[a.bytes + i] != 0x5a) {
            fprintf(stderr, "emulator: something wrote %s an allocation of %zu bytes\n",
                    a.base[i] != 0x5a ? "before" : "behind", a.bytes);
            abort();
        }
#endif
    if (a.type != cudaMemoryTypeHost) used_bytes -= a.bytes;
    char *base = a.base;
    size_t mapped = a.mapped;
    allocations.erase((uintptr_t)p);
    if (mapped)
        give_pages_back(base, mapped);
    else
        free(base);
}

/* ---- launches ---- */

void check_argument(const char *kernel, int number, const void *p)
{
    locked l(lock);
    if (!p || is_device(p)) return;
    fprintf(stderr, "emulator: kernel %s: argument %d points to memory that %s\n", kernel, number,
            find(p) ? "is the host's: every access would cross the bus" : "the device cannot see");
    abort();
}

/* default 90; MODE_EMULATOR_CAPABILITY=86: an older GPU */
int capability()
{
    const char *s = getenv("MODE_EMULATOR_CAPABILITY");
    return s ? atoi(s) : 90;
}

size_t shared_most()
{
    const int c = capability();
    return (c == 80 ? 163 : c / 10 == 8 || c / 10 == 12 ? 99 : 227) * 1024;
}

cudaError_t set_attribute(const void *function, cudaFuncAttribute attribute, int value)
{
    locked l(lock);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || (size_t)value > shared_most()) return note(cudaErrorInvalidValue);
    shared_limits[function] = (size_t)value;
    return cudaSuccess;
}

static size_t shared_limit(const void *function)
{
    const auto limit = shared_limits.find(function);
    return limit == shared_limits.end() ? (size_t)SHARED_DEFAULT : std::max(limit->second, (size_t)SHARED_DEFAULT);
}

/* CUDA loads kernels lazily, each at its first launch, which a capture does not allow. */
void must_be_loaded(std::set<const void *> &loaded_ones, const void *what, const char *name, cudaStream_t stream)
{
    if (!is_captured(stream)) {
        loaded_ones.insert(what);
    } else if (!loaded_ones.count(what)) {
        fprintf(stderr, "emulator: %s is met for the first time in a capture, where its code cannot be loaded\n", name);
        abort();
    }
}

void launch(const char *name, const void *function, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            unsigned cluster, std::function<void()> body, std::function<void()> recheck,
            std::vector<std::string> arguments)
{
    locked l(lock);
    const size_t most = shared_limit(function);
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    cudaError_t e = cudaSuccess;
    if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || cluster == 0 || cluster > 8 || grid.x % cluster ||
        threads * cluster > 1024) /* the last is the emulator's own limit */
        e = cudaErrorInvalidConfiguration;
    else if (shared > most)
        e = cudaErrorInvalidValue;
    if (e != cudaSuccess) {
        fprintf(
            stderr,
            "emulator: kernel %s cannot start: grid (%u, %u, %u), block (%u, %u, %u), %zu bytes of shared memory of "
            "%zu allowed\n",
            name, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared, most);
        note(e);
        return;
    }
    if (!can_launch(stream)) {
        note(cudaErrorStreamCaptureInvalidated);
        return;
    }
    must_be_loaded(loaded, function, name, stream);
    const bool is_replayed = is_captured(stream);
    struct grid g = {name, grid, block, shared, shared_limits.count(function) > 0, cluster, std::move(body)};
    const mode_ptx::function *ptx = mode_ptx::kernel_of(function);
    enqueue(stream, [g, recheck, function, is_replayed, ptx, arguments] {
        recheck(); /* a graph may be launched after memory it uses was freed */
        if (is_replayed && g.shared > shared_limit(function)) {
            fprintf(stderr, "emulator: kernel %s was recorded with %zu bytes of shared memory and is allowed %zu now\n",
                    g.name, g.shared, shared_limit(function));
            abort();
        }
        if (ptx)
            mode_ptx::run(*ptx, g, arguments);
        else
            run_grid(g);
    });
}

} // namespace mode_emu

using namespace mode_emu;

extern "C" {

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorUnsupportedPtxVersion: return "cudaErrorUnsupportedPtxVersion";
    case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInvalidDeviceFunction: return "cudaErrorInvalidDeviceFunction";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorECCUncorrectable: return "cudaErrorECCUncorrectable";
    case cudaErrorNvlinkUncorrectable: return "cudaErrorNvlinkUncorrectable";
    case cudaErrorOperatingSystem: return "cudaErrorOperatingSystem";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorHardwareStackError: return "cudaErrorHardwareStackError";
    case cudaErrorSystemNotReady: return "cudaErrorSystemNotReady";
    case cudaErrorSystemDriverMismatch: return "cudaErrorSystemDriverMismatch";
    case cudaErrorMpsClientTerminated: return "cudaErrorMpsClientTerminated";
    case cudaErrorExternalDevice: return "cudaErrorExternalDevice";
    case cudaErrorUnknown: return "cudaErrorUnknown";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorHostMemoryAlreadyRegistered: return "cudaErrorHostMemoryAlreadyRegistered";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    }
    return "an error that the emulator does not know";
}

const char *cudaGetErrorString(cudaError_t e)
{
    return cudaGetErrorName(e);
}

cudaError_t cudaGetLastError(void)
{
    locked l(lock);
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return fault_or(e);
}

cudaError_t cudaPeekAtLastError(void)
{
    return fault_or(last_error);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

/* MODE_EMULATOR_DRIVER=11080: the driver of an older toolkit; 0: there is none */
cudaError_t cudaDriverGetVersion(int *version)
{
    const char *s = getenv("MODE_EMULATOR_DRIVER");
    *version = s ? atoi(s) : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    int driver;
    cudaDriverGetVersion(&driver);
    *n = driver / 1000 < CUDART_VERSION / 1000 ? 0 : 1;
    return *n ? fault() : note(cudaErrorInsufficientDriver);
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : note(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

/* default 132; MODE_EMULATOR_MULTIPROCESSORS=2: few, so that persistent blocks take several tiles each */
static int multiprocessors()
{
    const char *s = getenv("MODE_EMULATOR_MULTIPROCESSORS");
    return s ? atoi(s) : 132;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    if (device != 0) return note(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated GPU");
    p->totalGlobalMem = total_bytes();
    p->sharedMemPerBlock = SHARED_DEFAULT;
    p->sharedMemPerBlockOptin = shared_most();
    p->major = capability() / 10;
    p->minor = capability() % 10;
    p->multiProcessorCount = multiprocessors();
    p->l2CacheSize = 1 << 20; /* small: timing flushes it before every run */
    p->maxThreadsPerBlock = 1024;
    p->warpSize = 32;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (device != 0) return note(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)shared_most(); break;
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors(); break;
    case cudaDevAttrComputeCapabilityMajor: *value = capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = capability() % 10; break;
    default: return note(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

int mode_emu_ends(void)
{
    static bool ends;
    static const bool is_told = atexit([] { ends = true; }) == 0;
    return is_told && ends;
}

cudaError_t cudaDeviceReset(void)
{
    return cudaDeviceSynchronize();
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    locked l(lock);
    *total = total_bytes();
    *free_bytes = *total - std::min(*total, used_bytes);
    return cudaSuccess;
}

cudaError_t(cudaMalloc)(void **p, size_t bytes)
{
    return take(p, bytes, cudaMemoryTypeDevice);
}

/* For the emulator's own tests: the backend uses none. As on a GPU, more than the device has may be allocated. */
cudaError_t cudaMallocManaged(void **p, size_t bytes, unsigned)
{
    if (bytes == 0) return note(cudaErrorInvalidValue);
    return take(p, bytes, cudaMemoryTypeManaged);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return take(p, bytes, cudaMemoryTypeHost);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    return take(p, bytes, cudaMemoryTypeHost);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned)
{
    locked l(lock);
    if (!p || bytes == 0) return note(cudaErrorInvalidValue);
    const uintptr_t first = (uintptr_t)p / PAGE, last = ((uintptr_t)p + bytes - 1) / PAGE;
    for (const auto &[at, a] : allocations) /* pages are pinned, none twice */
        if (!a.base && at / PAGE <= last && (at + a.bytes - 1) / PAGE >= first)
            return note(cudaErrorHostMemoryAlreadyRegistered);
    allocations[(uintptr_t)p] = {bytes, cudaMemoryTypeHost, nullptr, 0};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    locked l(lock);
    run_everything();
    return allocations.erase((uintptr_t)p) ? cudaSuccess : note(cudaErrorInvalidValue);
}

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t)
{
    return take(p, bytes, cudaMemoryTypeDevice);
}

static cudaError_t release(void *p, bool host)
{
    locked l(lock);
    if (!p) return fault();
    not_in_a_capture("memory is given back");
    run_everything();
    if (fault() != cudaSuccess) return fault();
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end() || !it->second.base || (it->second.type == cudaMemoryTypeHost) != host)
        return note(cudaErrorInvalidValue);
    give_back(p, it->second);
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    return release(p, false);
}

cudaError_t cudaFreeHost(void *p)
{
    return release(p, true);
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t)
{
    return release(p, false);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p)
{
    locked l(lock);
    const auto *found = find(p);
    bool inside = found && (uintptr_t)p < found->first + found->second.bytes;
    *a = {inside ? found->second.type : cudaMemoryTypeUnregistered, inside ? 0 : -2, inside ? (void *)p : nullptr,
          inside && found->second.type == cudaMemoryTypeDevice ? nullptr : (void *)p};
    return cudaSuccess;
}

static bool fits(enum cudaMemcpyKind kind, const void *to, const void *from)
{
    const bool into = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
               out_of = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return kind == cudaMemcpyDefault || (is_device(to) == into && is_device(from) == out_of);
}

/* Does a copy stay inside one allocation? Memory that the runtime does not know may follow directly after one. */
static bool stays(const void *p, size_t bytes)
{
    const auto *a = find(p);
    const uintptr_t end = a ? a->first + a->second.bytes : 0;
    return !a || (uintptr_t)p == end || (uintptr_t)p + bytes <= end;
}

/* Copies from and to pageable memory: the call returns when it is done with that memory. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    locked l(lock);
    if (bytes == 0) return cudaSuccess;
    if (!fits(kind, to, from) || !stays(to, bytes) || !stays(from, bytes)) return note(cudaErrorInvalidValue);
    if (is_captured(stream) && (!find(from) || !find(to))) {
        fprintf(stderr, "emulator: memory of the host that is not pinned is copied in a capture\n");
        abort();
    }
    if (find(from)) {
        enqueue(stream, [=] { memcpy(to, from, bytes); });
    } else {
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        enqueue(stream, [=] { memcpy(to, staged->data(), bytes); });
    }
    return find(to) ? fault() : cudaStreamSynchronize(stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows,
                              enum cudaMemcpyKind kind, cudaStream_t stream)
{
    for (size_t i = 0; i < rows; i++)
        cudaMemcpyAsync((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width, kind, stream);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    locked l(lock);
    not_in_a_capture("a synchronous copy is made");
    if (bytes > 0 && !fits(kind, to, from)) return note(cudaErrorInvalidValue);
    run_everything();
    working w;
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    return cudaMemsetAsync(p, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    locked l(lock);
    if (bytes == 0) return cudaSuccess;
    const auto *a = find(p);
    if (!a || (uintptr_t)p + bytes > a->first + a->second.bytes) return note(cudaErrorInvalidValue);
    enqueue(stream, [=] { memset(p, value, bytes); });
    return cudaSuccess;
}

} // extern "C"
