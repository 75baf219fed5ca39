/* The cpu backend compiled for AMX (flags in cpu.cmake); usable if processor and kernel support it. */
#if defined(__x86_64__) && (defined(__AMX_BF16__) || defined(__AMXBF16__)) /* the second: clang before 15 */
#define MODE_NN_CPU_TABLE mode__cpu_amx_ops
#define MODE_NN_CPU_NAME  "cpu-amx"
#include "nn/cpu/table.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Tiles are 8 KB of register state: Linux (5.16) grants them to a process on request, and to the threads it creates.
 * The kernel refuses if alternate signal stacks are too small for them. */
bool mode__cpu_amx_usable(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d, amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_bf16) || !(d & amx_tile)) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif
typedef int mode_nn_cpu_amx_is_not_empty;
