/* backend_name.h - the names of all backends (nn/backend.h), in one list, also for code that only passes them on. */
#ifndef MODE_BASE_BACKEND_NAME_H
#define MODE_BASE_BACKEND_NAME_H

#include "base/error.h"

#include <stdbool.h>

/* X(name, precision of its GEMMs, ops, for whom): ops is the middle of mode__..._ops; "cpu" is the best of the others.
 * PEOPLE: offered by --backend; PROOF: for tests (a slow reference, or an instruction set that "cpu" selects by
 * itself). */
#define MODE_BACKENDS_CPU(X)                                                                                           \
    X("cpu", "f32", , PEOPLE)                                                                                          \
    X("cpu-plain", "f32", cpu_plain, PROOF)                                                                            \
    X("cpu-avx2", "f32", cpu_avx2, PROOF)                                                                              \
    X("cpu-avx512", "f32", cpu_avx512, PROOF)                                                                          \
    X("cpu-amx", "f32", cpu_amx, PEOPLE)
#define MODE_BACKENDS_CUDA(X)                                                                                          \
    X("cuda", "f32", cuda, PEOPLE)                                                                                     \
    X("cuda-tf32", "tf32", cuda_tf32, PEOPLE)                                                                          \
    X("cuda-bf16", "bf16", cuda_bf16, PEOPLE)                                                                          \
    X("cuda-fp8", "fp8", cuda_fp8, PEOPLE)
#define MODE_BACKENDS_REF(X)                                                                                           \
    X("ref", "f32", ref, PEOPLE)                                                                                       \
    X("ref-bf16", "bf16", ref_bf16, PROOF)                                                                             \
    X("ref-fp8", "fp8", ref_fp8, PROOF)
#define MODE_BACKENDS(X) MODE_BACKENDS_CPU(X) MODE_BACKENDS_CUDA(X) MODE_BACKENDS_REF(X)

#define MODE__BAR_PROOF(name)
#define MODE__BAR_PEOPLE(name)                " | " name
#define MODE__BAR(name, precision, ops, whom) MODE__BAR_##whom(name)
/* The help of --backend. */
#define MODE_BACKENDS_HELP "auto (a GPU if one can be used)" MODE_BACKENDS(MODE__BAR)

/* Whether a backend of that name exists, even if not in this build or on this machine. */
bool mode_is_backend_name(const char *name);
/* Checks a value of --backend: such a name or "auto". MODE_E_USAGE otherwise. */
enum mode_status mode_check_backend_option(const char *name, struct mode_error *err);

#endif
