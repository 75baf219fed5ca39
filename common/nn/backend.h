/* backend.h - a compute device: the op table, its memory, its clock.
 *
 *     struct mode_backend *be;
 *     st = mode_backend_open(&be, "cpu", &err);      // "ref" | "cpu" | "cuda" ...
 *     ...
 *     mode_backend_close(&be);
 *
 * "ref" is the slow reference: plain loops, double accumulation. "cpu" uses every thread of base/parallel.h, and AVX2
 * and FMA, or AVX-512, where the processor has them ("cpu-plain", "cpu-avx2", "cpu-avx512"); "cpu-amx" computes f32
 * GEMMs with AMX (docs/decisions/0019-amx-by-name.md). "cuda" is the first GPU in f32, "cuda-tf32" the same with TF32
 * GEMMs.
 *
 * "cuda-bf16" and its reference "ref-bf16" keep activations, their gradients and GEMM operands in bf16 (the residual
 * stream too); accumulation, statistics, the loss, parameters, their gradients and optimiser state stay f32.
 *
 * "cuda-fp8" and its reference "ref-fp8" are an experiment (docs/decisions/0022-products-in-fp8.md): bf16, except for
 * the GEMMs that mode_backend_narrow allows in fp8. No run can request it.
 *
 * Threads: one caller per backend. */
#ifndef MODE_NN_BACKEND_H
#define MODE_NN_BACKEND_H

#include "base/error.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct mode_backend;
struct mode_meeting;
struct mode_ranks;

/* MODE_E_VALUE: no such backend; MODE_E_DEVICE: it is known, but this build or machine lacks it. */
enum mode_status mode_backend_open(struct mode_backend **be, const char *name, struct mode_error *err);
void mode_backend_close(struct mode_backend **be);
/* Is there a GPU that cannot be opened because it has failed? mode_backend_open fails then as it does without a GPU. A
 * GPU that fails during an op ends the process, with a message and the exit code of MODE_E_DEVICE. */
bool mode_backend_gpu_is_broken(void);
/* "ref", "cpu-avx2", "cpu-plain", "cuda" ... */
const char *mode_backend_name(const struct mode_backend *be);
/* Human-readable: "NVIDIA H200, 140 GiB"; on CPU backends the backend's name. */
void mode_backend_describe(const struct mode_backend *be, char *text, size_t size);
/* Is it a device: memory of its own, ops asynchronous to the host? */
bool mode_backend_is_device(const struct mode_backend *be);
/* How activations are stored: F32 or BF16 (nn/ops.h says which tensors these are). */
enum mode_dtype mode_backend_activations(const struct mode_backend *be);

/* GPU ops are asynchronous: wait for all of them. Needed before the host reads a result, or overwrites what an op may
 * still read. A no-op on other backends. */
void mode_backend_sync(struct mode_backend *be);

/* Autotuning. While on, GEMM algorithms and attention implementations are chosen by timing the candidates, once per
 * shape and shapes close to it. Off again, the choices stay, and new shapes get the default. So: on for a first step,
 * which runs eagerly. Faster, but the choice, and with it the last bits of results, may differ from process to process.
 * Off by default. */
void mode_backend_measure(struct mode_backend *be, bool on);
/* The same for GEMMs alone, whose choices can be saved and restored. */
void mode_backend_measure_products(struct mode_backend *be, bool on);
#define MODE_ALGORITHMS_FIRST_LINE "mode-algorithms 2\n"
/* The algorithms chosen so, as text, one per line; the caller frees it. NULL on backends that have none. */
char *mode_backend_algorithms(struct mode_backend *be);
/* GEMMs of the text's shapes, and of shapes close to those, use its algorithms from now on, all others the default: the
 * same text gives bit-identical results. A text for another GPU model, library version or backend changes nothing, and
 * why_not says so; otherwise why_not is "". MODE_E_FORMAT: it is not such a text. */
enum mode_status mode_backend_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                             struct mode_error *err);

/* While on, linear layers (mode_linear..., not mode_project) may quantise x, w and dy to fp8; models switch it on for
 * their blocks. The gradient of w is never computed in fp8. No effect except on "cuda-fp8" and "ref-fp8". Off by
 * default. */
void mode_backend_narrow(struct mode_backend *be, bool on);
/* GEMMs requested in fp8: how many ran so (made), and how many stayed bf16 (left) because a size is not a multiple of
 * 16 or the library refused. Graph replays (mode_backend_repeat) are not counted again. */
struct mode_backend_narrowed {
    int64_t made, left;
};
void mode_backend_narrowed(const struct mode_backend *be, struct mode_backend_narrowed *n);
/* Scratch bytes of an fp8 GEMM of x [m, k] and w [n, k]; 0 on backends without fp8. */
int64_t mode_backend_narrow_work(const struct mode_backend *be, int64_t m, int64_t n, int64_t k);

/* A repeated sequence of ops, such as a training step: runs ops(ctx), or replays the CUDA graph of an earlier run.
 * Equal keys promise the same ops on the same tensors with the same arguments; only the contents of tensors change. ops
 * calls ops and nothing that synchronises, reads results, allocates or can fail. On a GPU the first run of a key is
 * eager; the second is captured as a CUDA graph, which is launched then and from then on. Results are bit-identical
 * either way. Freeing memory drops all graphs. While profiling or autotuning, and once a capture has failed, every run
 * is eager. Other backends just call ops. */
struct mode_sequence {
    const void *owner; /* whose tensors these are */
    int64_t shape[3];
};
void mode_backend_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx);
/* Off: every sequence runs eagerly. On by default. */
void mode_backend_record(struct mode_backend *be, bool on);
/* Runs of sequences so far; all 0 on backends without graphs. */
struct mode_backend_repeats {
    long one_by_one, recorded, replayed; /* replayed: graph launches, the first included */
    char why_not[160];                   /* a clause, once a capture has failed; else "" */
};
void mode_backend_repeats(const struct mode_backend *be, struct mode_backend_repeats *r);

/* Branches: independent ops, which a GPU runs concurrently, one stream per branch. Between fork and join, ops belong to
 * the branch selected last (after the fork, 0): they run after everything before the fork and in order within their
 * branch; what follows the join runs after everything. The caller promises that no branch reads or writes what another
 * writes, and that dw and db of linear_back and project_back are read only after the join: a GPU computes these on a
 * side stream of the branch. Results are bit-identical to serial execution, which is what happens while profiling or
 * autotuning, where mode_backend_branches was not called, and on all other backends. */
enum { MODE_BRANCHES = 2 };
/* Enable them. scratch: bytes for branch 1 (branch 0 has mode_backend_reserve's); beside: bytes for the side stream of
 * each branch; both grow where an op needs more. MODE_E_DEVICE, MODE_E_MEMORY. */
enum mode_status mode_backend_branches(struct mode_backend *be, size_t scratch, size_t beside, struct mode_error *err);
/* Total device memory that this takes. */
size_t mode_backend_branches_bytes(const struct mode_backend *be, size_t scratch, size_t beside);
void mode_backend_fork(struct mode_backend *be);
void mode_backend_branch(struct mode_backend *be, int i);
void mode_backend_join(struct mode_backend *be);

/* The backend's memory (docs/decisions/0011-memory-of-gpus.md): zeroed, aligned to 64 bytes. Only ops and
 * mode_backend_copy access device memory, never the host. MODE_E_MEMORY. free accepts NULL. */
enum mode_status mode_backend_alloc(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);
void mode_backend_free(struct mode_backend *be, void *data);
/* memcpy where either side or both may be the backend's memory: synchronous, after all earlier ops. Not within a
 * sequence. */
void mode_backend_copy(struct mode_backend *be, void *to, const void *from, size_t bytes);

/* Small host memory with a copy on the device (lists, a step's inputs and results), zeroed. data is the host's
 * copy, pinned for a GPU; ops that take such memory (nn/ops.h) look up the device copy by its address. Freed by
 * mode_backend_free. The two below are asynchronous copies in stream order with the ops; a sequence repeats them.
 * No-ops where there is no second copy.
 *   written  host to device, after the host has written and before ops read. The host must not write again until the
 *            next mode_backend_sync.
 *   show     device to host: the host may read it after the next mode_backend_sync. */
enum mode_status mode_backend_share(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);
void mode_backend_written(struct mode_backend *be, const void *data, size_t bytes);
void mode_backend_show(struct mode_backend *be, void *data, size_t bytes);

/* Bytes of device memory that this backend can still allocate, out of what was free when it was opened; and the
 * device's total. SIZE_MAX for both on CPU backends, whose pages are committed when first touched. */
void mode_backend_room(const struct mode_backend *be, size_t *left, size_t *total);

/* Pin (page-lock) host memory that ops often read (batches), so that its copies to the device are asynchronous DMA. If
 * that fails nothing changes. Unpin before freeing it. */
void mode_backend_pin(struct mode_backend *be, void *data, size_t bytes);
void mode_backend_unpin(struct mode_backend *be, void *data);

/* Allocate that much scratch now, for the current branch; an op that needs no more allocates nothing. MODE_E_MEMORY. */
enum mode_status mode_backend_reserve(struct mode_backend *be, size_t bytes, struct mode_error *err);

/* Join the processes of a meeting, each with a backend of this kind, into a group (dist/ranks.h): on GPUs, by NCCL. A
 * collective call. The group owns the meeting, which is closed on failure too; close the group before the backend.
 * MODE_E_DEVICE: not on this backend, or NCCL failed; MODE_E_PEER: another process has ended or cannot join. */
enum mode_status mode_backend_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting **m,
                                    struct mode_error *err);

/* Profile every op from now on: calls and seconds; ops run serially, on a GPU timed by its events. print: the most
 * expensive first, with FLOP/s and bytes/s as the shapes give them, each tensor read or written once. */
void mode_backend_profile(struct mode_backend *be, bool on);
void mode_backend_profile_print(struct mode_backend *be, FILE *out);
/* The same as four totals: seconds in GEMMs (on a GPU without the kernels around them: activations, bias gradients), in
 * attention, in all else; FLOPs of GEMMs, attention and loss, as the shapes give them. */
struct mode_backend_sums {
    double products, attention, rest, flops;
};
void mode_backend_profile_sums(struct mode_backend *be, struct mode_backend_sums *sums);

#endif
