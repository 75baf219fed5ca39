/* The second entry point of a program: running as a decoder. */
#include "base/error.h"
#include "base/system_calls.h"
#include "data/decode_here.h"
#include "data/decoder_wire.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

const char mode__decoder_role[] = MODE_DECODER_NAME;

static const struct mode_box *boxes_of(const struct mode_decoder_area *a)
{
    return (const struct mode_box *)(const void *)((const char *)a + a->ask.boxes);
}

static enum mode_status window(struct mode_decoder_area *a, const struct mode_picture *f, struct mode_error *err)
{
    const struct mode_decoder_ask *ask = &a->ask;
    struct mode_half half = {.p = &ask->preprocess,
                             .draw = ask->train ? &ask->draw : NULL,
                             .unresized = ask->unresized,
                             .plainly = ask->plainly,
                             .to = (uint8_t *)a + ask->out};
    enum mode_status st = mode__window_here(&half, f, err);
    a->answer.width = half.width;
    a->answer.height = half.height;
    a->answer.resized = half.resized;
    return st;
}

static enum mode_status pixels(struct mode_decoder_area *a, const struct mode_picture *f, struct mode_error *err)
{
    struct mode_image im;
    enum mode_status st = MODE_OK;
    if (a->ask.work == MODE_DECODE_PROBE)
        st = mode__header_here(f->data, f->size, &a->answer.width, &a->answer.height, err);
    if (!st) st = mode__decode_here(&im, f->data, f->size, f->limits, err);
    if (st) return st;
    a->answer.width = im.width;
    a->answer.height = im.height;
    const size_t n = (size_t)im.width * (size_t)im.height * 3;
    if (a->ask.work == MODE_DECODE_PIXELS) memcpy((uint8_t *)a + a->ask.out, im.rgb, n);
    mode_image_clear(&im);
    return MODE_OK;
}

static void answer(struct mode_decoder_area *a)
{
    const struct mode_decoder_ask *ask = &a->ask;
    const struct mode_picture f = {.data = (const uint8_t *)a + MODE_DECODER_FILE,
                                   .size = ask->size,
                                   .limits = &ask->limits,
                                   .blur = boxes_of(a),
                                   .n_blur = ask->n_blur};
    struct mode_error err = {0};
    enum mode_status st;
    if (ask->work == MODE_DECODE_WINDOW)
        st = window(a, &f, &err);
    else if (ask->work == MODE_DECODE_HEADER)
        st = mode__header_here(f.data, f.size, &a->answer.width, &a->answer.height, &err);
    else
        st = pixels(a, &f, &err);
    memcpy(a->answer.text, err.text, sizeof err.text);
    a->answer.status = (int)st;
}

static void limit(int what, rlim_t most)
{
    setrlimit(what, &(struct rlimit){most, most});
}

/* RLIMIT_DATA counts neither shared memory, nor stacks, nor read-only mappings, whose page tables also take memory. So
 * the whole address space is limited to what is mapped now plus `memory`. */
static void limit_memory(size_t memory)
{
    enum { STACK = 16 << 20 };
    char pages[32] = "";
    const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    const bool read_it = fd >= 0 && read(fd, pages, sizeof pages - 1) > 0;
    if (fd >= 0) close(fd);
    limit(RLIMIT_DATA, memory);
    if (read_it) limit(RLIMIT_AS, strtoull(pages, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) + memory + STACK);
}

static struct mode_decoder_area *take_area(void)
{
    struct stat sb;
    if (fstat(MODE_DECODER_AREA, &sb) != 0) return NULL;
    void *p = mmap(NULL, (size_t)sb.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, MODE_DECODER_AREA, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Closes all file descriptors but the line. */
static void close_files(void)
{
    close(MODE_DECODER_AREA);
    closefrom(MODE_DECODER_AREA + 1);
    for (int fd = 0; !MODE_SANITIZED && fd < MODE_LOCK_LINE; fd++) close(fd); /* sanitizers report to stderr */
}

static _Noreturn void decode(void)
{
    struct mode_decoder_area *a = take_area();
    sigset_t timer;
    if (!a) _exit(1);
    close_files();
    prctl(PR_SET_NAME, MODE_DECODER_NAME);
    prctl(PR_SET_DUMPABLE, 0);
    limit(RLIMIT_CORE, 0);
    if (!MODE_SANITIZED) limit_memory(a->memory);
    sigemptyset(&timer);
    sigaddset(&timer, SIGPROF);
    sigprocmask(SIG_UNBLOCK, &timer, NULL); /* all others are blocked: the parent decides when this process ends */
    char byte = mode_system_calls_lock(MODE_LOCK_DECODE) ? MODE_DECODER_LOCKED : MODE_DECODER_OPEN;
    while (write(MODE_LOCK_LINE, &byte, 1) == 1 && read(MODE_LOCK_LINE, &byte, 1) == 1) {
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value = {.tv_sec = a->ask.cpu_seconds}}, NULL);
        answer(a);
        byte = MODE_DECODER_DONE;
    }
    _exit(0);
}

/* Runs before main: so it works in every program that decodes, whatever its main does. */
static __attribute__((constructor)) void take_role(int argc, char **argv)
{
    int kind;
    socklen_t n = sizeof kind;
    if (argc == 1 && strcmp(argv[0], MODE_DECODER_NAME) == 0 &&
        getsockopt(MODE_LOCK_LINE, SOL_SOCKET, SO_TYPE, &kind, &n) == 0)
        decode();
}
