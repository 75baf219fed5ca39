/* Decoders that crash, loop, hang, allocate too much, or are killed: each costs at most one picture, and leaves nothing
 * behind. libjpeg's functions are wrapped (CMakeLists.txt), and misbehave for pictures of certain widths; the decoder
 * processes are this program too, so they call the wrapped functions. */
#include "data/decoder.h"

#include "base/clock.h"
#include "base/parallel.h"
#include "base/system_calls.h"
#include "data/decode_here.h"
#include "data/image.h"
#include "picture_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jerror.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* needs the headers above before it */
#include <cmocka.h>

enum { SIDE = 8, HEIGHT = 60, STILL = 3 };
enum width {
    GOOD = 200,
    CRASHES,
    LOOPS,
    HOARDS,
    HOARDS_SHARED,
    HOARDS_STACK,
    HOARDS_TABLES,
    WAITS,
    DAWDLES,
    TALKS,
    SAYS_ZERO,
    CHATTERS,
    CALLS,
    OPENS,
    ADVISES,
    CRASHES_WHEN_SKIPPING,
    SPOILS,
    SEES_SECRET
};

static struct mode_error err;
static const struct mode_image_limits limits = {.max_pixels = 1 << 20, .max_side = 1 << 12, .max_bytes = 1 << 20};

int __real_jpeg_read_header(j_decompress_ptr c, boolean require_image);
JDIMENSION __real_jpeg_skip_scanlines(j_decompress_ptr c, JDIMENSION n);
int __wrap_jpeg_read_header(j_decompress_ptr c, boolean require_image);
JDIMENSION __wrap_jpeg_skip_scanlines(j_decompress_ptr c, JDIMENSION n);

static void crash(void)
{
    static volatile uintptr_t nowhere = 64;
    *(volatile int *)nowhere = 1;
}

static void say_no_memory(j_decompress_ptr c)
{
    c->err->msg_code = JERR_OUT_OF_MEMORY;
    c->err->error_exit((j_common_ptr)c);
}

static void hoard(j_decompress_ptr c)
{
    while (malloc(1 << 20)) {
    }
    say_no_memory(c);
}

/* More memory than a decoder may have, of a kind that RLIMIT_DATA does not count. */
static void hoard_aside(j_decompress_ptr c, int protection, int flags)
{
    if (mmap(NULL, (size_t)1 << 30, protection, flags | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) say_no_memory(c);
}

int __wrap_jpeg_read_header(j_decompress_ptr c, boolean require_image)
{
    static bool is_spoiled;
    static _Alignas(1 << 16) char area[1 << 16];
    const int got = __real_jpeg_read_header(c, require_image), never = 0;
    if (is_spoiled && c->image_width != SPOILS) crash();
    switch (c->image_width) {
    case CRASHES: crash(); break;
    case LOOPS:
        for (volatile int on = 1; on;) {
        }
        break;
    case HOARDS: hoard(c); break;
    case HOARDS_SHARED: hoard_aside(c, PROT_READ | PROT_WRITE, MAP_SHARED); break;
    case HOARDS_STACK: hoard_aside(c, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_GROWSDOWN); break;
    case HOARDS_TABLES: hoard_aside(c, PROT_READ, MAP_PRIVATE); break;
    case WAITS:
        for (;;) syscall(SYS_futex, &never, 0, 0, NULL, NULL, 0);
    case DAWDLES:
        for (;;) syscall(SYS_futex, &never, 0, 0, &(struct timespec){.tv_nsec = 100000000}, NULL, 0);
    case TALKS:
    case SAYS_ZERO:
    case CHATTERS:
        if (write(MODE_LOCK_LINE, (const char *[]){"xx", "\0", "dd"}[c->image_width - TALKS], 2) < 0) crash();
        break;
    case CALLS: socket(AF_INET, SOCK_STREAM, 0); break;
    case OPENS:
        if (open("/proc/self/maps", O_RDONLY) >= 0 || errno != EACCES) crash();
        break;
    case ADVISES:
        if (madvise(area, sizeof area, MADV_DONTNEED) != 0) crash();
        if (madvise(area, sizeof area, MADV_DONTFORK) == 0 || errno != EINVAL) crash();
        break;
    case SPOILS: is_spoiled = true; break;
    case SEES_SECRET:
        if (getenv("AWS_SECRET_ACCESS_KEY")) crash();
        break;
    default: break;
    }
    return got;
}

JDIMENSION __wrap_jpeg_skip_scanlines(j_decompress_ptr c, JDIMENSION n)
{
    if (c->image_width == CRASHES_WHEN_SKIPPING) crash();
    return __real_jpeg_skip_scanlines(c, n);
}

static struct bytes picture(int width)
{
    return fixture_jpeg(width, HEIGHT, 3, false, (uint64_t)width);
}

static enum mode_status probe(int width, struct mode_error *e)
{
    struct bytes j = picture(width);
    int w, h;
    enum mode_status st = mode_image_probe(j.data, j.size, &limits, &w, &h, e);
    assert_true(st ? w == 0 && h == 0 : w == width && h == HEIGHT);
    free(j.data);
    return st;
}

static void is_bad(int width, const char *sentence)
{
    memset(&err, 0, sizeof err);
    assert_int_equal(probe(width, &err), MODE_E_FORMAT);
    if (!strstr(err.text, sentence)) fail_msg("\"%s\" instead of \"%s\"", err.text, sentence);
    assert_int_equal(probe(GOOD, &err), MODE_OK);
}

/* Decoder processes under parent, -1: under any; at most `most` of them to pid. */
static int decoders(pid_t parent, pid_t *pid, int most)
{
    DIR *d = opendir("/proc");
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[280], line[256];
        int of;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        FILE *f = e->d_name[0] >= '0' && e->d_name[0] <= '9' ? fopen(path, "re") : NULL;
        if (!f) continue;
        if (fgets(line, sizeof line, f) && strstr(line, "(mode-decoder)") &&
            sscanf(strchr(line, ')'), ") %*c %d", &of) == 1 && of == (int)parent) {
            if (n < most) pid[n] = (pid_t)atoi(e->d_name);
            n++;
        }
        fclose(f);
    }
    closedir(d);
    return n;
}

static bool is_gone(pid_t pid, double within_s)
{
    const double until = mode_clock_s() + within_s;
    char path[64], state = 0;
    while (mode_clock_s() < until) {
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        FILE *f = fopen(path, "re");
        if (!f) return true;
        const bool got = fscanf(f, "%*d (%*[^)]) %c", &state) == 1;
        fclose(f);
        if (!got || state == 'Z' || state == 'X') return true; /* a zombie: its parent does not wait for it here */
        usleep(10000);
    }
    return false;
}

static void test_same_bytes(void **state)
{
    (void)state;
    float a[3 * SIDE * SIDE], b[3 * SIDE * SIDE];
    uint8_t bytes[3 * SIDE * SIDE];
    struct mode_preprocess p;
    mode_preprocess_default(&p, SIDE);
    for (int w = 1; w < GOOD; w += 7) {
        struct bytes j = picture(w);
        const struct mode_picture f = {.data = j.data, .size = j.size, .limits = &limits};
        struct mode_half half = {.p = &p, .to = bytes};
        struct mode_image here, there;
        int width, height;
        assert_int_equal(mode__window_here(&half, &f, &err), MODE_OK);
        assert_int_equal(mode__window_floats(a, &half, bytes, &err), MODE_OK);
        assert_int_equal(mode_preprocess_eval_file(&p, &f, b, &err), MODE_OK);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(mode__decode_here(&here, j.data, j.size, &limits, &err), MODE_OK);
        assert_int_equal(mode_preprocess_eval(&p, &here, b, &err), MODE_OK);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(mode_image_decode(&there, j.data, j.size, &limits, &err), MODE_OK);
        assert_int_equal(mode_image_header(j.data, j.size, &width, &height, &err), MODE_OK);
        assert_true(width == w && height == HEIGHT && there.width == w && there.height == HEIGHT);
        assert_memory_equal(here.rgb, there.rgb, (size_t)(w * HEIGHT * 3));
        mode_image_clear(&here);
        mode_image_clear(&there);
        free(j.data);
    }
    assert_int_equal(mode_decoder_count(), 1);
}

static void test_one_that_crashes(void **state)
{
    (void)state;
    is_bad(CRASHES, MODE_SANITIZED ? "the decoder " : "the decoder was stopped by signal 11 (Segmentation fault)");
    assert_int_equal(mode_decoder_count(), 1);
    struct bytes j = picture(CRASHES);
    struct mode_image im;
    int width, height;
    assert_int_equal(mode_image_header(j.data, j.size, &width, &height, &err), MODE_E_FORMAT);
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &limits, &err), MODE_E_FORMAT);
    assert_null(im.rgb);
    free(j.data);
}

static void test_one_that_runs_on(void **state)
{
    (void)state;
    const double cpu = mode_decoder_cpu_seconds();
    is_bad(LOOPS, "the decoder took longer than 1 s");
    assert_true(mode_decoder_cpu_seconds() - cpu > 1.2); /* twice, by a clock of another kind */
}

static void test_one_that_wants_all_memory(void **state)
{
    (void)state;
    if (MODE_SANITIZED) skip();
    for (int width = HOARDS; width <= HOARDS_TABLES; width++)
        is_bad(width, "the decoder needed more than 256 MiB of memory");
}

static void test_one_that_stands_still(void **state)
{
    (void)state;
    is_bad(WAITS, "the decoder did not answer for 3 s");
    is_bad(DAWDLES, "the decoder did not answer for 12 s"); /* a compromised one stays awake */
}

/* A compromised decoder may send anything at any time. It is not mistaken for one that was killed. */
static void test_one_that_talks(void **state)
{
    (void)state;
    is_bad(TALKS, "the decoder sent a malformed answer");
    is_bad(SAYS_ZERO, "the decoder sent a malformed answer");
    for (int i = 0; i < 20; i++) {
        const enum mode_status st = probe(CHATTERS, &err); /* depending on whether its answer had arrived */
        assert_true(st == MODE_OK || (st == MODE_E_FORMAT && mode_decoder_failed(err.text)));
        assert_int_equal(probe(GOOD, &err), MODE_OK);
    }
}

static void test_the_lock(void **state)
{
    (void)state;
    if (MODE_SANITIZED || !mode_system_calls_can_lock()) skip();
    is_bad(CALLS, "the decoder was stopped by signal 31 (Bad system call)");
    assert_int_equal(probe(OPENS, &err), MODE_OK);
    assert_int_equal(probe(ADVISES, &err), MODE_OK);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    is_bad(CRASHES, "the decoder "); /* the next one starts with the secret here */
    assert_int_equal(probe(SEES_SECRET, &err), MODE_OK);
    unsetenv("AWS_SECRET_ACCESS_KEY");
}

/* The verdict on a picture depends neither on earlier ones nor on which path was tried first. */
static void test_the_second_try(void **state)
{
    (void)state;
    float a[3 * SIDE * SIDE], b[3 * SIDE * SIDE];
    struct bytes j = picture(CRASHES_WHEN_SKIPPING);
    const struct mode_picture f = {.data = j.data, .size = j.size, .limits = &limits};
    const struct mode_crop_draw draw = {.scale_min = 0.1, .scale_max = 0.1, .seed = 3};
    struct mode_preprocess p;
    struct mode_image im;
    mode_preprocess_default(&p, SIDE);
    assert_int_equal(probe(SPOILS, &err), MODE_OK);
    assert_int_equal(probe(GOOD, &err), MODE_OK);
    assert_int_equal(mode_image_decode(&im, j.data, j.size, &limits, &err), MODE_OK);
    assert_int_equal(mode_preprocess_train(&p, &im, &draw, a, &err), MODE_OK);
    assert_int_equal(mode_preprocess_train_file(&p, &f, &draw, b, &err), MODE_OK);
    assert_memory_equal(a, b, sizeof a);
    mode_image_clear(&im);
    free(j.data);
}

struct killer {
    pthread_t thread;
    int left;
    atomic_bool stop;
};

static void *kill_decoders(void *ctx)
{
    struct killer *k = ctx;
    pid_t pid[16], last = 0;
    while (!k->stop && k->left > 0) {
        const int n = decoders(getpid(), pid, 16);
        for (int i = 0; i < n && i < 16; i++) {
            if (pid[i] == last) continue; /* it is not waited for yet */
            kill(pid[i], SIGKILL);
            is_gone(pid[i], 5);
            last = pid[i];
            k->left--;
        }
        usleep(50000);
    }
    return NULL;
}

static void test_killed_from_outside(void **state)
{
    (void)state;
    pid_t pid;
    assert_int_equal(probe(GOOD, &err), MODE_OK);
    assert_int_equal(decoders(getpid(), &pid, 1), 1);
    kill(pid, SIGKILL);
    assert_true(is_gone(pid, 5));
    assert_int_equal(probe(GOOD, &err), MODE_OK); /* it was idle */
    struct killer k = {.left = 3};
    pthread_create(&k.thread, NULL, kill_decoders, &k);
    mode_decoder_limits.answer_seconds = 60; /* so that the killer finds it, on a slow machine */
    enum mode_status st = probe(WAITS, &err);
    mode_decoder_limits.answer_seconds = STILL;
    k.stop = true;
    pthread_join(k.thread, NULL);
    assert_int_equal(st, MODE_E_MEMORY);
    assert_non_null(strstr(err.text, "the decoder was killed 3 times"));
    assert_int_equal(probe(GOOD, &err), MODE_OK);
}

enum { ITEMS = 400 };
static int fates[ITEMS];

static void one_of_many(void *ctx, int64_t i, int thread)
{
    (void)ctx;
    (void)thread;
    struct mode_error e = {0};
    fates[i] = (int)probe(i % 97 == 5 ? CRASHES : i % 101 == 7 ? SPOILS : 30 + (int)(i % 100), &e);
}

static void test_threads(void **state)
{
    (void)state;
    mode_parallel_for(ITEMS, one_of_many, NULL);
    for (int i = 0; i < ITEMS; i++) assert_int_equal(fates[i], i % 97 == 5 ? MODE_E_FORMAT : MODE_OK);
    assert_in_range(mode_decoder_count(), 1, mode_parallel_threads());
    assert_int_equal(decoders(getpid(), NULL, 0), mode_decoder_count());
}

/* A process that decodes `width` and then ends in the given way: its decoders must end with it. */
static void end_with(int width, int signal)
{
    pid_t decoder;
    int line[2], status;
    char byte;
    assert_int_equal(pipe(line), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(line[0]);
        if (mode_decoder_count() != 0 || probe(GOOD, NULL) != MODE_OK) _exit(1);
        if (write(line[1], "x", 1) != 1) _exit(2);
        if (width) probe(width, NULL);
        if (!signal) exit(0); /* NOLINT: what ends with a process is looked at */
        pause();
    }
    close(line[1]);
    assert_int_equal(read(line[0], &byte, 1), 1);
    close(line[0]);
    if (signal) {
        usleep(200000);
        assert_int_equal(decoders(pid, &decoder, 1), 1);
        kill(pid, signal);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (signal)
        assert_true(is_gone(decoder, 10));
    else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_they_end_with_their_process(void **state)
{
    (void)state;
    end_with(0, 0);
    end_with(0, SIGKILL);
    end_with(0, SIGTERM);
    end_with(LOOPS, SIGKILL);                     /* busy: they end at their time limit */
    assert_int_equal(probe(GOOD, &err), MODE_OK); /* our own still work */
    pid_t mine[64];
    const int n = decoders(getpid(), mine, 64);
    assert_in_range(n, 1, mode_parallel_threads());
}

/* What a compromised decoder may claim about a picture. */
static void test_answers_are_not_believed(void **state)
{
    (void)state;
    static uint8_t bytes[3 * SIDE * SIDE];
    struct mode_preprocess p;
    mode_preprocess_default(&p, SIDE);
    struct mode_half half = {.p = &p, .unresized = sizeof bytes, .width = 4000, .height = 4000};
    bool refused = false;
    assert_int_equal(mode__window_sink(&half, bytes, NULL, &refused, &err), MODE_E_FORMAT); /* it cannot be so little */
    half = (struct mode_half){.p = &p, .unresized = sizeof bytes, .width = 4, .height = 4, .resized = true};
    assert_int_equal(mode__window_sink(&half, bytes, NULL, &refused, &err), MODE_E_FORMAT);
    refused = true;
    half.resized = false;
    assert_int_equal(mode__window_sink(&half, bytes, NULL, &refused, &err), MODE_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_one_that_crashes),
        cmocka_unit_test(test_one_that_runs_on),
        cmocka_unit_test(test_one_that_wants_all_memory),
        cmocka_unit_test(test_one_that_stands_still),
        cmocka_unit_test(test_one_that_talks),
        cmocka_unit_test(test_the_lock),
        cmocka_unit_test(test_the_second_try),
        cmocka_unit_test(test_killed_from_outside),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_they_end_with_their_process),
        cmocka_unit_test(test_answers_are_not_believed),
    };
    signal(SIGCHLD, SIG_IGN); /* as some parents leave it */
    mode_parallel_set_threads(4);
    mode_decoder_limits = (struct mode_decoder_limits){
        .cpu_seconds = 1, .answer_seconds = STILL, .silent_seconds = 12, .memory = 256 << 20};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
