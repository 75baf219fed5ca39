#include "base/system_calls.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#define THIS_ARCH 0 /* matches no architecture: nothing is allowed */
#endif

#define LOAD(field)  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ARGUMENT(i)  LOAD(args[i]) /* its lower half: supported architectures are little-endian */
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define KILL         ANSWER(SECCOMP_RET_KILL_PROCESS)
#define ALLOW        ANSWER(SECCOMP_RET_ALLOW)
#define IF(value)                                                                                                      \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, 1) /* if equal execute the next
                                                                                         statement, else skip it */
#define UNLESS(value, n)                                                                                               \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (n)) /* if equal continue, else
                                                                                           skip n */
#define IF_BIT(bit) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bit), 0, 1)
#define CHECK_ARCH  LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0), KILL, LOAD(nr)

/* A filter instead of seccomp's strict mode, which a process that already has a filter, as in a container, cannot
 * enter. */
static bool enter(struct sock_filter *rules, size_t n)
{
    struct sock_fprog filter = {(unsigned short)n, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static bool lock_all(void)
{
    struct sock_filter rules[] = {CHECK_ARCH, IF(SYS_exit), ALLOW, KILL};
    return enter(rules, sizeof rules / sizeof *rules);
}

/* Calls that malloc makes, without executable memory; the line. Libraries that open a file (to detect the CPU, on some
 * machines) get EACCES. madvise only to release memory or to request huge pages: with other advice root could take
 * pages from the machine. */
static bool lock_decode(void)
{
    /* clang-format off */
    struct sock_filter rules[] = {
        CHECK_ARCH,
        IF(SYS_brk), ALLOW, IF(SYS_munmap), ALLOW, IF(SYS_mremap), ALLOW, IF(SYS_futex), ALLOW,
        IF(SYS_setitimer), ALLOW, IF(SYS_clock_gettime), ALLOW, IF(SYS_getrandom), ALLOW, IF(SYS_exit_group), ALLOW,
        IF(SYS_restart_syscall), ALLOW,
        IF(SYS_openat), ANSWER(SECCOMP_RET_ERRNO | EACCES),
        UNLESS(SYS_madvise, 8), ARGUMENT(2), IF(MADV_DONTNEED), ALLOW, IF(MADV_FREE), ALLOW, IF(MADV_HUGEPAGE), ALLOW,
        ANSWER(SECCOMP_RET_ERRNO | EINVAL),
        UNLESS(SYS_mmap, 6), ARGUMENT(2), IF_BIT(PROT_EXEC), KILL, ARGUMENT(3), IF_BIT(MAP_ANONYMOUS), ALLOW,
        LOAD(nr), UNLESS(SYS_read, 3), ARGUMENT(0), IF(MODE_LOCK_LINE), ALLOW,
        LOAD(nr), UNLESS(SYS_write, 3), ARGUMENT(0), IF(MODE_LOCK_LINE), ALLOW,
        KILL,
    };
    /* clang-format on */
    return enter(rules, sizeof rules / sizeof *rules);
}

bool mode_system_calls_lock(enum mode_lock lock)
{
    if (MODE_SANITIZED == MODE_SANITIZED_THREADS) return true;
    if (lock == MODE_LOCK_ALL) return lock_all();
    return MODE_SANITIZED || lock_decode();
}

bool mode_system_calls_can_lock(void)
{
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) != 0 && errno == EFAULT; /* the filter pointer is checked
                                                                                        last */
}
