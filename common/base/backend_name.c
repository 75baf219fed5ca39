#include "base/backend_name.h"

#include <stddef.h>
#include <string.h>

bool mode_is_backend_name(const char *name)
{
    static const char *const names[] = {"ref",        "ref-bf16", "ref-fp8", "cpu",       "cpu-plain", "cpu-avx2",
                                        "cpu-avx512", "cpu-amx",  "cuda",    "cuda-tf32", "cuda-bf16", "cuda-fp8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

enum mode_status mode_check_backend_option(const char *name, struct mode_error *err)
{
    if (strcmp(name, "auto") == 0 || mode_is_backend_name(name)) return MODE_OK;
    return MODE_FAIL(
        err, MODE_E_USAGE,
        "--backend: \"%.40s\" is unknown; expected auto, cpu, cpu-amx, cuda, cuda-tf32, cuda-bf16, cuda-fp8 "
        "or ref",
        name);
}
