/* backend.h - a compute device: the op table, its memory, its clock.
 *
 *     struct mode_backend *be;
 *     st = mode_backend_open(&be, "cpu", &err);      // "ref" | "cpu" | "cuda" ...
 *     ...
 *     mode_backend_close(&be);
 *
 * "ref" is the slow truth: plain loops, double accumulation. "cpu" uses every thread of base/parallel.h, and AVX2
 * and FMA, or AVX-512, where the processor has them ("cpu-plain", "cpu-avx2", "cpu-avx512"); "cpu-amx" makes products
 * of floats with AMX (docs/decisions/0019-amx-by-name.md). "cuda" is the first GPU in f32, "cuda-tf32" with products of
 * numbers rounded to 10 bits.
 *
 * "cuda-bf16" and its slow truth "ref-bf16" keep activations, their gradients and the operands of products in bf16
 * (the residual stream too); sums, statistics, the loss, parameters, their gradients and the optimiser stay f32.
 *
 * "cuda-fp8" and its slow truth "ref-fp8" are an experiment (docs/decisions/0022-products-in-fp8.md): bf16, but for
 * products that mode_backend_narrow allows to be made of 8-bit numbers. No run can ask for it.
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
/* Has this machine a GPU that cannot be opened because it has failed? Opening is refused then as where there is none. A
 * GPU that fails while it computes ends the process, with a sentence and the exit code of MODE_E_DEVICE. */
bool mode_backend_gpu_is_broken(void);
/* "ref", "cpu-avx2", "cpu-plain", "cuda" ... */
const char *mode_backend_name(const struct mode_backend *be);
/* For people: "NVIDIA H200, 140 GiB"; of a processor the name. */
void mode_backend_describe(const struct mode_backend *be, char *text, size_t size);
/* Does it compute apart from the host's processor, at the same time? */
bool mode_backend_is_device(const struct mode_backend *be);
/* How activations are stored: F32 or BF16 (nn/ops.h says which tensors these are). */
enum mode_dtype mode_backend_activations(const struct mode_backend *be);

/* Ops of a GPU return before they are done: wait for all of them. Before the host reads a result, or writes what an op
 * may still read. Nothing to do on the others. */
void mode_backend_sync(struct mode_backend *be);

/* While on, algorithms of matrix products and the ways of attention are chosen by timing them, once for each shape and
 * those like it, where the device has several; off again, what was chosen stays, and new shapes follow the rule. So:
 * on for a first step, which runs op by op. Faster, but what is chosen, and with it the last bits of results, may
 * differ from process to process. Off by default. */
void mode_backend_measure(struct mode_backend *be, bool on);
/* The same of matrix products alone: what is chosen can be kept, and chosen again. */
void mode_backend_measure_products(struct mode_backend *be, bool on);
#define MODE_ALGORITHMS_FIRST_LINE "mode-algorithms 2\n"
/* The algorithms that were chosen so, as a text of a line each, to be freed; NULL from backends that have none. */
char *mode_backend_algorithms(struct mode_backend *be);
/* Products of the text's shapes, and of shapes like those, take its algorithms from now on, all others follow the rule:
 * the same text, the same bytes. Where it is for another kind of GPU, another version of its library or another backend
 * nothing changes, and why_not says so; else that is "". MODE_E_FORMAT: it is no such text. */
enum mode_status mode_backend_use_algorithms(struct mode_backend *be, const char *text, char *why_not, size_t size,
                                             struct mode_error *err);

/* While on, linear maps (mode_linear..., not mode_project) may round x, w and dy to 8 bits: models say so of their
 * blocks. The gradient of w never does. Nothing to do but on "cuda-fp8" and "ref-fp8". Off by default. */
void mode_backend_narrow(struct mode_backend *be, bool on);
/* How many products were asked for so, and made; and that stayed bf16, because a size is no multiple of 16 or the
 * library refused. What is replayed (mode_backend_repeat) is not counted again. */
struct mode_backend_narrowed {
    int64_t made, left;
};
void mode_backend_narrowed(const struct mode_backend *be, struct mode_backend_narrowed *n);
/* Scratch that a product of such sizes takes; 0 on backends that make none. x [m, k], w [n, k]. */
int64_t mode_backend_narrow_work(const struct mode_backend *be, int64_t m, int64_t n, int64_t k);

/* A sequence of ops that comes again and again, as a step of training does: runs ops(ctx), or what was recorded when it
 * ran before. A key promises the same ops on the same tensors with the same arguments as ever before; what changes from
 * time to time is in the tensors. ops calls ops and nothing that waits, reads results, takes memory or can fail. On a
 * GPU the first time of a key runs op by op, the second is recorded as a CUDA graph, which is launched then and later;
 * the same bytes either way. Recorded sequences are forgotten when memory is freed. While profiling or measuring, and
 * after the device has refused to record, every time runs op by op. Other backends just run ops. */
struct mode_sequence {
    const void *owner; /* whose tensors these are */
    int64_t shape[3];
};
void mode_backend_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx);
/* Off: every sequence runs op by op. On by default. */
void mode_backend_record(struct mode_backend *be, bool on);
/* What became of sequences so far; all 0 on backends that record none. */
struct mode_backend_repeats {
    long one_by_one, recorded, replayed; /* replayed: launches, that of the recording included */
    char why_not[160];                   /* a clause, once the device has refused; else "" */
};
void mode_backend_repeats(const struct mode_backend *be, struct mode_backend_repeats *r);

/* Branches: ops that need nothing of each other, which a GPU runs at the same time. Between fork and join ops belong to
 * the branch that was named last, after fork to 0: they come after all that was called before the fork and after the
 * ops of their branch before them; what is called after join comes after everything. The caller promises that what one
 * branch writes no other reads or writes, and that dw and db of linear_back and project_back are read after the join
 * alone: a GPU makes these beside their branch. The same bytes as one after another, which is how ops run while
 * profiling or measuring, where mode_backend_branches was not called, and on all other backends. */
enum { MODE_BRANCHES = 2 };
/* Make them possible: scratch of branch 1, and for what each has beside it (branch 0 has mode_backend_reserve's); more
 * is taken where an op needs more. MODE_E_DEVICE, MODE_E_MEMORY. */
enum mode_status mode_backend_branches(struct mode_backend *be, size_t scratch, size_t beside, struct mode_error *err);
/* All that this takes of the device's memory. */
size_t mode_backend_branches_bytes(const struct mode_backend *be, size_t scratch, size_t beside);
void mode_backend_fork(struct mode_backend *be);
void mode_backend_branch(struct mode_backend *be, int i);
void mode_backend_join(struct mode_backend *be);

/* The backend's memory (docs/decisions/0011-memory-of-gpus.md): zeroed, aligned to 64 bytes. A device's is its own: ops
 * and mode_backend_copy get at it, the host never does. MODE_E_MEMORY. NULL may be freed. */
enum mode_status mode_backend_alloc(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);
void mode_backend_free(struct mode_backend *be, void *data);
/* memcpy where one side or both may be the backend's memory: after all ops that were called before it, and done when it
 * returns. Not within a sequence. */
void mode_backend_copy(struct mode_backend *be, void *to, const void *from, size_t bytes);

/* Small memory that both sides have (lists, what a step is told and what it tells), zeroed: data is the host's, and
 * where a device has a copy of its own, the ops that take such memory (nn/ops.h) find it by that. Given back by
 * mode_backend_free. Both of the following take their turn among the ops, wait for nothing and may be in a sequence,
 * which does them every time; nothing to do where there is no copy.
 *   written  after the host has, before ops read it. The host leaves it alone until the next mode_backend_sync.
 *   show     what ops have made there so far: the host finds it after the next mode_backend_sync. */
enum mode_status mode_backend_share(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);
void mode_backend_written(struct mode_backend *be, const void *data, size_t bytes);
void mode_backend_show(struct mode_backend *be, void *data, size_t bytes);

/* Bytes of the device's own memory that this backend can still take, as far as was free when it was opened, and all
 * that the device has. SIZE_MAX twice: the host's processor, whose memory is taken page by page as it is touched. */
void mode_backend_room(const struct mode_backend *be, size_t *left, size_t *total);

/* Tell the device of memory of the caller's that its ops will often read (batches): it is then copied without the
 * processor and without waiting. Where that cannot be done nothing changes. Unpin before it is freed. */
void mode_backend_pin(struct mode_backend *be, void *data, size_t bytes);
void mode_backend_unpin(struct mode_backend *be, void *data);

/* Take scratch of that many bytes now, of the branch that ops belong to; an op that needs no more allocates nothing.
 * MODE_E_MEMORY. */
enum mode_status mode_backend_reserve(struct mode_backend *be, size_t bytes, struct mode_error *err);

/* The processes of a meeting, with a backend of this kind each, as a group (dist/ranks.h): of GPUs, by NCCL. All call
 * it. The meeting is taken over, whatever comes of it; backends close after their group. MODE_E_DEVICE: not on this
 * backend, or NCCL says no; MODE_E_PEER: another process has ended or cannot take part. */
enum mode_status mode_backend_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting **m,
                                    struct mode_error *err);

/* Count calls and seconds of every op from now on: one after another, on a GPU by its own clock; print them, the
 * dearest first, with operations and bytes a second: those of its shapes, each tensor read or written once. */
void mode_backend_profile(struct mode_backend *be, bool on);
void mode_backend_profile_print(struct mode_backend *be, FILE *out);
/* The same in four numbers: seconds of products (on a GPU without what goes with them: activations, biases' gradients),
 * of attention, of all else; floating point operations of products, attention and loss by their shapes. */
struct mode_backend_sums {
    double products, attention, rest, flops;
};
void mode_backend_profile_sums(struct mode_backend *be, struct mode_backend_sums *sums);

#endif
