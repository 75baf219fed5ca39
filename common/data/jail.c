#include "data/jail.h"

#include "base/system_calls.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS = 60 };
enum phase { PHASE_START, PHASE_LOCKED, PHASE_DONE, PHASE_NO_LOCK };

static void *take(size_t size, int sharing)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_NORESERVE | sharing, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void child(volatile int *phase, const struct mode_jail *jail, mode_jail_fn *work, void *ctx)
{
    const struct rlimit cpu = {CPU_SECONDS, CPU_SECONDS}, none = {0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CPU, &cpu);
    setrlimit(RLIMIT_CORE, &none);
    if (!mode_system_calls_lock(MODE_LOCK_ALL)) {
        *phase = PHASE_NO_LOCK;
        syscall(SYS_exit, 1);
    }
    *phase = PHASE_LOCKED;
    work(ctx, jail->out, jail->scratch, jail->scratch_size);
    *phase = PHASE_DONE;
#ifdef __SANITIZE_THREAD__
    _exit(0); /* ends all threads: the TSan runtime has made one here */
#endif
    for (;;) syscall(SYS_exit, 0); /* not exit_group, which the filter forbids */
}

enum mode_status mode_jail_run(struct mode_jail *jail, size_t out_size, size_t scratch_size, mode_jail_fn *work,
                               void *ctx, const char *what, struct mode_error *err)
{
    sigset_t all, before;
    int status = 0;
    *jail = (struct mode_jail){.out_size = out_size, .scratch_size = scratch_size};
    jail->out = take(out_size, MAP_SHARED);
    jail->scratch = take(scratch_size, MAP_PRIVATE);
    volatile int *phase = take(sizeof *phase, MAP_SHARED);
    if (!jail->out || !jail->scratch || !phase) {
        if (phase) munmap((void *)(uintptr_t)phase, sizeof *phase);
        return MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory to read it in a process of its own", what);
    }
    sigfillset(&all); /* inherited by the child: no signal handler runs there */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) child(phase, jail, work, ctx);
    int why = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    enum phase reached = PHASE_START;
    if (pid > 0) {
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        } /* ECHILD: another waitpid has reaped it */
        reached = (enum phase) * phase;
    }
    munmap((void *)(uintptr_t)phase, sizeof *phase);
    if (pid < 0)
        return MODE_FAIL(err, MODE_E_MEMORY, "%s: no process can be created to read it: %s", what, strerror(why));
    if (reached == PHASE_DONE) return MODE_OK;
    if (reached == PHASE_LOCKED)
        return MODE_FAIL(
            err, MODE_E_FORMAT, "%s: the process that reads it was stopped by signal %d (%s); none of it is used", what,
            WIFSIGNALED(status) ? WTERMSIG(status) : 0, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "none");
    return MODE_FAIL(err, MODE_E_GENERIC,
                     "%s: it is only read in a locked process, and this system does not allow one (seccomp). HINT: "
                     "convert it to safetensors elsewhere",
                     what);
}

void mode_jail_clear(struct mode_jail *jail)
{
    if (jail->out) munmap(jail->out, jail->out_size);
    if (jail->scratch) munmap(jail->scratch, jail->scratch_size);
    *jail = (struct mode_jail){0};
}
