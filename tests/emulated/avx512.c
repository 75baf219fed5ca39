/* avx512 - the op cases of tests/ops on "cpu-avx512" against "ref", as the only program of an emulated machine.
 *
 *     mode-test-avx512 zmm       the CPU has AVX-512 and the OS saves its registers: cpu is cpu-avx512
 *     mode-test-avx512 no-zmm    the CPU reports AVX-512, the OS does not save its registers: it is not used
 *
 * The kernel passes the word after "--" of its command line. The verdict is the last line; as PID 1 the program then
 * powers the machine off. It is linked statically: the machine has no other file. */
#include "nn/backend.h"
#include "ops/op_cases.h"

#include <cpuid.h>
#include <sys/reboot.h>
#include <unistd.h>

static bool is_avx512(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    if (mode_backend_open(&be, name, &err)) {
        printf("%s: %s\n", name, err.text);
        return false;
    }
    bool is = strcmp(mode_backend_name(be), "cpu-avx512") == 0;
    printf("%s: opens as %s\n", name, mode_backend_name(be));
    mode_backend_close(&be);
    return is;
}

static int compare(const char *name)
{
    struct mode_backend *ref, *be;
    struct mode_error err;
    int bad = 0;
    if (mode_backend_open(&ref, "ref", &err) || mode_backend_open(&be, name, &err)) {
        printf("%s\n", err.text);
        return 1;
    }
    for (int i = 0; i < N_OP_CASES; i++) {
        const struct op_case *c = &op_cases[i];
        struct op_run a = op_case_run(c, i, be), b = op_case_run(c, i, ref);
        double worst = 0;
        int64_t at;
        for (int j = 0; j < a.n_out; j++) worst = fmax(worst, op_distance(&a.out[j], &b.out[j], &at));
        bool good = worst <= c->tolerance && fabs(a.scalar - b.scalar) <= 1e-6 * fabs(b.scalar);
        printf("%s %s {%lld, %lld, %lld, %lld, %lld}: %.2g of %.2g\n", good ? "ok  " : "FAIL", c->name,
               (long long)c->s[0], (long long)c->s[1], (long long)c->s[2], (long long)c->s[3], (long long)c->s[4], worst,
               c->tolerance);
        fflush(stdout);
        bad += !good;
        op_run_clear(&a);
        op_run_clear(&b);
    }
    mode_backend_close(&be);
    mode_backend_close(&ref);
    return bad;
}

int main(int argc, char **argv)
{
    bool zmm = false;
    for (int i = 1; i < argc; i++) zmm |= strcmp(argv[i], "zmm") == 0; /* boot loaders add arguments of their own */
    unsigned a, b = 0, c, d, state = 0, high;
    __cpuid_count(7, 0, a, b, c, d);
    bool says = b >> 16 & 1;
    __cpuid(1, a, b, c, d);
    if (c >> 27 & 1) __asm__("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
    printf("processor says AVX-512: %d; registers the system keeps: %#x\n", says, state);
    bool kept = (state & 0xe6) == 0xe6;
    int bad = !says + (kept != zmm) + (is_avx512("cpu") != zmm) + (is_avx512("cpu-avx512") != zmm);
    if (zmm) bad += compare("cpu-avx512");
    printf("avx512 verdict: %s, %d op cases compared, %d wrong\n", bad ? "FAILED" : "passed", zmm ? N_OP_CASES : 0, bad);
    fflush(stdout);
    if (getpid() == 1) {
        sleep(1); /* the serial port drains */
        reboot(RB_POWER_OFF);
    }
    return bad != 0;
}
