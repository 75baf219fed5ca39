/* cudnn.c - what is loaded in place of cuDNN: descriptors as cuDNN's header describes them, checked as they are set and
 * finalized, and an execution of the described operations in plain C. So the code that uses cuDNN is tested on the host
 * as the kernels are: the descriptors, pointers, ragged offsets and workspace that nn/cuda/cudnn.c passes.
 *
 * Two candidates: engine 4 with knob 24 at 0, and at 1, whose sums come out a little larger, as if summed in another
 * order. As in the real library, GEMMs without attention are taken in three dimensions only. In the backward pass of
 * packed sequences, head sizes that are no multiple of 16 come out wrong, and on GPUs before Hopper all do.
 * MODE_EMULATOR_CUDNN: old (a version that is refused); 9.15 (as 9.19, and on GPUs before Hopper packed sequences come
 * out wrong in the forward pass too); 9.19 (wrong in the backward pass as the real one is: on GPUs before Hopper it
 * ignores the strides of the log-sum-exp; on Hopper, where the number of keys is a multiple of 128 plus 64, also in
 * packed sequences, 64 zero keys more are counted); none (no engine takes any graph); broken (execution fails); chance
 * (engine 5, non-deterministic, comes first). */
#include <cudnn_graph.h>

#include "base/error.h"
#include "ops/graph_machine.h"

#include <cuda_runtime_api.h>
#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCRATCH = 1000 /* bytes of workspace; a run overwrites them, as cuDNN may */,
    VERSION = 92600,
    OLD = 91500,
    OLDEST = 91501,
    BEFORE_9_26 = 91900
};
enum { ENGINE = 4, CHANCE, CANDIDATES = 2, PARTS = 64, ATTRIBUTES = 16 };

struct attribute {
    int name;
    int64_t n;
    void *data;
};

/* A plan's copy of its graph: the descriptors may be gone when it runs. */
struct program {
    struct mode__graph graph;
    int64_t id[MODE__GRAPH_TENSORS]; /* unique ids of the tensors */
    double beta;
    int statistic, dq; /* of attention's backward graph; statistic (log-sum-exp) MODE__NONE: another graph */
};

struct descriptor {
    int type;
    bool finished;
    int n_attributes;
    struct attribute attribute[ATTRIBUTES];
    /* of engines, configurations and plans */
    struct descriptor *graph;
    int64_t engine, knob;
    struct program *program;
    bool has_run; /* outside of a capture, so its code is loaded */
};

struct job { /* an execution in a stream; kept to the end, as graphs replay it */
    struct program program;
    struct machine machine;
    void *work;
    struct job *before;
};

struct mode_emu_dnn {
    cudaStream_t stream;
    struct job *jobs;
};

static char last_error[400];
static long alive, handles; /* alive: descriptors */

static cudnnStatus_t bad(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return CUDNN_STATUS_BAD_PARAM;
}

static bool is(const char *what)
{
    const char *v = getenv("MODE_EMULATOR_CUDNN");
    return v && strcmp(v, what) == 0;
}

/* The oldest that is taken, and one that knows packed sequences before Hopper. */
static bool is_before_9_26(void)
{
    return is("9.15") || is("9.19");
}

size_t cudnnGetVersion(void)
{
    return is("old") ? OLD : is("9.15") ? OLDEST : is("9.19") ? BEFORE_9_26 : VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_BAD_PARAM ? "BAD_PARAM" : status ? "NOT_SUPPORTED" : "SUCCESS";
}

void cudnnGetLastErrorString(char *message, size_t size)
{
    snprintf(message, size, "%s", last_error);
}

/* The real library registers its code with the driver and has exit handlers: it must not be unloaded before the end. */
__attribute__((constructor)) static void come(void)
{
    (void)mode_emu_ends(); /* registers its exit handler */
}

__attribute__((destructor)) static void leave(void)
{
    if (mode_emu_ends()) return;
    fprintf(stderr, "emulator: cuDNN is unloaded before the program ends\n");
    abort();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    *handle = mode_xcalloc(1, sizeof **handle);
    handles++;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    MODE_ASSERT(--handles > 0 || alive == 0); /* every descriptor was destroyed */
    for (struct job *j = handle->jobs; j;) {
        struct job *before = j->before;
        free(j);
        j = before;
    }
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, void *stream)
{
    handle->stream = (cudaStream_t)stream;
    return CUDNN_STATUS_SUCCESS;
}

/* Which attributes a descriptor has: type and how many elements; part: the type of a descriptor in it, -1: any
 * operation. */
static const struct rule {
    int of, name, type;
    int64_t least, most;
    int part;
    bool needed;
} rules[] = {
#define OF(kind) CUDNN_BACKEND_##kind##_DESCRIPTOR
#define PART     CUDNN_TYPE_BACKEND_DESCRIPTOR
    {OF(TENSOR), CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, 0, true},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 3, 4, 0, true},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 3, 4, 0, true},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, 0, true},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, 0, true},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, 0, false},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, 0, false},
    {OF(TENSOR), CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, PART, 1, 1, OF(TENSOR), false},
    {OF(POINTWISE), CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, 1, 0, true},
    {OF(POINTWISE), CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, 1, 0, true},
    {OF(POINTWISE), CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, 1, 0, false},
    {OF(POINTWISE), CUDNN_ATTR_POINTWISE_SWISH_BETA, CUDNN_TYPE_DOUBLE, 1, 1, 0, false},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, PART, 1, 1, OF(POINTWISE), true},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_XDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_BDESC, PART, 1, 1, OF(TENSOR), false},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_TDESC, PART, 1, 1, OF(TENSOR), false},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_YDESC, PART, 1, 1, OF(TENSOR), false},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, PART, 1, 1, OF(TENSOR), false},
    {OF(OPERATION_POINTWISE), CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, PART, 1, 1, OF(TENSOR), false},
    {OF(MATMUL), CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, 0, true},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_DESC, PART, 1, 1, OF(MATMUL), true},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_ADESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_BDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_CDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, PART, 1, 1, OF(TENSOR), false},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, PART, 1, 1, OF(TENSOR), false},
    {OF(OPERATION_MATMUL), CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, PART, 1, 1, OF(TENSOR), false},
    {OF(REDUCTION), CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, 1, 0, true},
    {OF(REDUCTION), CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, 0, true},
    {OF(OPERATION_REDUCTION), CUDNN_ATTR_OPERATION_REDUCTION_DESC, PART, 1, 1, OF(REDUCTION), true},
    {OF(OPERATION_REDUCTION), CUDNN_ATTR_OPERATION_REDUCTION_XDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_REDUCTION), CUDNN_ATTR_OPERATION_REDUCTION_YDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_RESHAPE), CUDNN_ATTR_OPERATION_RESHAPE_XDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATION_RESHAPE), CUDNN_ATTR_OPERATION_RESHAPE_YDESC, PART, 1, 1, OF(TENSOR), true},
    {OF(OPERATIONGRAPH), CUDNN_ATTR_OPERATIONGRAPH_OPS, PART, 1, PARTS, -1, true},
    {OF(OPERATIONGRAPH), CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, 0, true},
    {OF(ENGINEHEUR), CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, PART, 1, 1, OF(OPERATIONGRAPH), true},
    {OF(ENGINEHEUR), CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, 0, true},
    {OF(ENGINE), CUDNN_ATTR_ENGINE_OPERATION_GRAPH, PART, 1, 1, OF(OPERATIONGRAPH), true},
    {OF(ENGINE), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, 1, 0, true},
    {OF(KNOB_CHOICE), CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, 1, 0, true},
    {OF(KNOB_CHOICE), CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, 1, 0, true},
    {OF(ENGINECFG), CUDNN_ATTR_ENGINECFG_ENGINE, PART, 1, 1, OF(ENGINE), true},
    {OF(ENGINECFG), CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, PART, 1, PARTS, OF(KNOB_CHOICE), false},
    {OF(EXECUTION_PLAN), CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, PART, 1, 1, OF(ENGINECFG), true},
    {OF(EXECUTION_PLAN), CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, 0, true},
    {OF(VARIANT_PACK), CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, PARTS, 0, true},
    {OF(VARIANT_PACK), CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, PARTS, 0, true},
    {OF(VARIANT_PACK), CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, 0, true},
};
enum { N_RULES = sizeof rules / sizeof *rules };

static size_t size_of(int type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    case CUDNN_TYPE_INT64: return sizeof(int64_t);
    case CUDNN_TYPE_DOUBLE: return sizeof(double);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return sizeof(void *);
    default: return sizeof(int);
    }
}

static const struct attribute *find(const struct descriptor *d, int name)
{
    for (int i = 0; i < d->n_attributes; i++)
        if (d->attribute[i].name == name) return &d->attribute[i];
    return NULL;
}

static struct descriptor *part_of(const struct descriptor *d, int name)
{
    const struct attribute *a = find(d, name);
    return a ? *(struct descriptor **)a->data : NULL;
}

static int number_of(const struct descriptor *d, int name)
{
    const struct attribute *a = find(d, name);
    return a ? *(int *)a->data : 0;
}

static int64_t long_of(const struct descriptor *d, int name)
{
    const struct attribute *a = find(d, name);
    return a ? *(int64_t *)a->data : 0;
}

static bool is_true(const struct descriptor *d, int name)
{
    const struct attribute *a = find(d, name);
    return a && *(bool *)a->data;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *to)
{
    struct descriptor *d = mode_xcalloc(1, sizeof *d);
    d->type = (int)type;
    alive++;
    *to = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t x)
{
    struct descriptor *d = x;
    for (int i = 0; i < d->n_attributes; i++) free(d->attribute[i].data);
    free(d->program);
    free(d);
    alive--;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t x, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n, const void *value)
{
    struct descriptor *d = x;
    const struct rule *r = rules;
    while (r < rules + N_RULES && (r->of != (int)d->type || r->name != (int)name)) r++;
    if (r == rules + N_RULES) return bad("a descriptor of type %d has no attribute %d", d->type, (int)name);
    if (d->finished) return bad("attribute %d of a descriptor that is finished", (int)name);
    if (r->type != (int)type) return bad("attribute %d is of type %d, not %d", (int)name, r->type, (int)type);
    if (n < r->least || n > r->most) return bad("%lld numbers of attribute %d", (long long)n, (int)name);
    for (int64_t i = 0; i < n && type == CUDNN_TYPE_BACKEND_DESCRIPTOR; i++) {
        const struct descriptor *p = ((struct descriptor *const *)value)[i];
        if (!p || !p->finished) return bad("attribute %d is a descriptor that is not finished", (int)name);
        if (r->part >= 0 && p->type != r->part)
            return bad("attribute %d is a descriptor of type %d", (int)name, p->type);
    }
    MODE_ASSERT(d->n_attributes < ATTRIBUTES);
    struct attribute *a = (struct attribute *)(uintptr_t)find(d, (int)name);
    if (a)
        free(a->data);
    else
        a = &d->attribute[d->n_attributes++];
    *a = (struct attribute){.name = (int)name, .n = n, .data = mode_xmalloc((size_t)n * size_of((int)type))};
    memcpy(a->data, value, (size_t)n * size_of((int)type));
    return CUDNN_STATUS_SUCCESS;
}

/* A graph being read: tensors are identified by their descriptors. */
struct reader {
    struct program *p;
    const struct descriptor *tensor[MODE__GRAPH_TENSORS];
    bool made[MODE__GRAPH_TENSORS];
    int next_place;
    cudnnStatus_t status;
};

static void refuse(struct reader *r, const char *why)
{
    if (!r->status) r->status = bad("%s", why);
}

static int tensor(struct reader *r, const struct descriptor *d, bool is_lengths)
{
    static const struct {
        int cudnn;
        enum mode__graph_type ours;
    } types[] = {{CUDNN_DATA_BFLOAT16, MODE__TYPE_BF16},
                 {CUDNN_DATA_FLOAT, MODE__TYPE_F32},
                 {CUDNN_DATA_INT32, MODE__TYPE_I32},
                 {CUDNN_DATA_BOOLEAN, MODE__TYPE_BOOL}};
    struct mode__graph *g = &r->p->graph;
    if (!d) return MODE__NONE;
    const int64_t id = long_of(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    for (int i = 0; i < g->n_tensors; i++) {
        if (r->tensor[i] == d) {
            if (is_lengths) g->tensor[i].place = MODE__LENGTHS;
            return i;
        }
        if (r->p->id[i] == id) refuse(r, "two tensors of one identifier");
    }
    const int first = tensor(r, part_of(d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC), false);
    const struct attribute *dim = find(d, CUDNN_ATTR_TENSOR_DIMENSIONS), *stride = find(d, CUDNN_ATTR_TENSOR_STRIDES);
    const bool inside = is_true(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL), scalar = is_true(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    MODE_ASSERT(g->n_tensors < MODE__GRAPH_TENSORS);
    const int at = g->n_tensors++;
    struct mode__graph_tensor *t = &g->tensor[at];
    *t = (struct mode__graph_tensor){.dim = {1, 1, 1, 1}, .first = first};
    for (int64_t i = 0; i < dim->n; i++) {
        t->dim[4 - dim->n + i] = ((const int64_t *)dim->data)[i];
        t->stride[4 - dim->n + i] = ((const int64_t *)stride->data)[i];
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].cudnn == number_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE)) t->type = types[i].ours;
    if (r->next_place == MODE__LENGTHS) r->next_place++;
    t->place = inside ? MODE__INSIDE : scalar ? MODE__SCALAR : is_lengths ? MODE__LENGTHS : r->next_place++;
    MODE_ASSERT(r->next_place <= MODE__N_PLACES);
    r->tensor[at] = d;
    r->p->id[at] = id;
    g->rank = (int)dim->n;
    return at;
}

static bool spreads(const struct mode__graph_tensor *from, const struct mode__graph_tensor *to, int dims)
{
    for (int i = 0; i < dims; i++)
        if (from->dim[i] != to->dim[i] && from->dim[i] != 1) return false;
    return true;
}

/* Checks what an operation reads and writes; shapes as cuDNN's header says. */
static void check(struct reader *r, const struct mode__graph_node *n)
{
    const struct mode__graph_tensor *t = r->p->graph.tensor, *out = &t[n->out];
    for (int i = 0; i < 3; i++)
        if (n->in[i] >= 0 && t[n->in[i]].place == MODE__INSIDE && !r->made[n->in[i]])
            refuse(r, "a virtual tensor is read that nothing makes");
    if (r->made[n->out] || out->place == MODE__SCALAR) refuse(r, "a tensor is made twice");
    r->made[n->out] = true;
    const struct mode__graph_tensor *a = &t[n->in[0]], *b = n->in[1] >= 0 ? &t[n->in[1]] : a;
    if (n->op == MODE__MATMUL) {
        if (a->dim[2] != out->dim[2] || b->dim[3] != out->dim[3] || a->dim[3] != b->dim[2] || !spreads(a, out, 2) ||
            !spreads(b, out, 2))
            refuse(r, "a product of matrices that do not fit");
    } else if (n->op == MODE__TRANSPOSE) {
        if (a->dim[2] != out->dim[3] || a->dim[3] != out->dim[2]) refuse(r, "a transpose of another shape");
    } else if (n->op == MODE__ROW_MAX || n->op == MODE__ROW_SUM) {
        if (out->dim[3] != 1 || a->dim[2] != out->dim[2]) refuse(r, "a sum of another shape");
    } else if (!spreads(a, out, 4) || !spreads(b, out, 4)) {
        refuse(r, "an operation by elements of tensors that do not fit");
    }
}

static void pointwise(struct reader *r, const struct descriptor *d, struct mode__graph_node *n)
{
    static const struct {
        int mode;
        enum mode__graph_op op;
        int inputs;
    } ops[] = {{CUDNN_POINTWISE_MUL, MODE__MUL, 2},
               {CUDNN_POINTWISE_ADD, MODE__ADD, 2},
               {CUDNN_POINTWISE_SUB, MODE__SUB, 2},
               {CUDNN_POINTWISE_DIV, MODE__DIV, 2},
               {CUDNN_POINTWISE_EXP, MODE__EXP, 1},
               {CUDNN_POINTWISE_LOG, MODE__LOG, 1},
               {CUDNN_POINTWISE_GEN_INDEX, MODE__ROW_INDEX, 1},
               {CUDNN_POINTWISE_CMP_LT, MODE__LESS, 2},
               {CUDNN_POINTWISE_CMP_GE, MODE__NOT_LESS, 2},
               {CUDNN_POINTWISE_LOGICAL_AND, MODE__AND, 2},
               {CUDNN_POINTWISE_BINARY_SELECT, MODE__SELECT, 3},
               {CUDNN_POINTWISE_IDENTITY, MODE__COPY, 1},
               {CUDNN_POINTWISE_GELU_FWD, MODE__GELU, 1},
               {CUDNN_POINTWISE_SWISH_FWD, MODE__QUICK_GELU, 1},
               {CUDNN_POINTWISE_GELU_BWD, MODE__GELU_BACK, 2},
               {CUDNN_POINTWISE_SWISH_BWD, MODE__QUICK_GELU_BACK, 2}};
    const struct descriptor *how = part_of(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const int mode = number_of(how, CUDNN_ATTR_POINTWISE_MODE);
    const struct attribute *beta = find(how, CUDNN_ATTR_POINTWISE_SWISH_BETA);
    const bool backward = mode == CUDNN_POINTWISE_GELU_BWD || mode == CUDNN_POINTWISE_SWISH_BWD;
    const struct descriptor *in[] = {
        part_of(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC),
        part_of(d, backward ? CUDNN_ATTR_OPERATION_POINTWISE_DYDESC : CUDNN_ATTR_OPERATION_POINTWISE_BDESC),
        part_of(d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC)};
    const struct descriptor *out = part_of(d, backward ? CUDNN_ATTR_OPERATION_POINTWISE_DXDESC
                                                       : CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    if (find(d, backward ? CUDNN_ATTR_OPERATION_POINTWISE_YDESC : CUDNN_ATTR_OPERATION_POINTWISE_DXDESC) ||
        find(d, backward ? CUDNN_ATTR_OPERATION_POINTWISE_BDESC : CUDNN_ATTR_OPERATION_POINTWISE_DYDESC) || !out) {
        refuse(r, "an operation by elements with tensors of another kind");
        return;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (ops[i].mode != mode) continue;
        n->op = ops[i].op;
        for (int j = 0; j < 3; j++) {
            if ((j < ops[i].inputs) != (in[j] != NULL)) refuse(r, "an operation by elements of more or fewer tensors");
            n->in[j] = tensor(r, in[j], false);
        }
    }
    if (n->op == MODE__ROW_INDEX && long_of(how, CUDNN_ATTR_POINTWISE_AXIS) == 3) n->op = MODE__COLUMN_INDEX;
    if (beta) r->p->beta = *(const double *)beta->data;
    n->out = tensor(r, out, false);
}

/* Ignores the strides of row statistics that are read from memory. */
static void misread(struct reader *r)
{
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    for (int i = 0; i < r->p->graph.n_tensors && major < 9; i++) {
        struct mode__graph_tensor *t = &r->p->graph.tensor[i];
        if (r->made[i] || t->type != MODE__TYPE_F32 || t->place == MODE__INSIDE || t->place == MODE__SCALAR ||
            t->first != MODE__NONE || t->dim[3] != 1)
            continue;
        t->stride[2] = 1;
        t->stride[1] = t->dim[2];
        t->stride[0] = t->dim[1] * t->dim[2];
    }
}

/* Only the backward pass reads row statistics; dq is its last output. */
static void note_backward(struct reader *r)
{
    const struct mode__graph *g = &r->p->graph;
    r->p->statistic = MODE__NONE;
    for (int i = 0; i < g->n_tensors; i++)
        if (!r->made[i] && g->tensor[i].type == MODE__TYPE_F32 && g->tensor[i].place < MODE__N_PLACES &&
            g->tensor[i].dim[2] > 1 && g->tensor[i].dim[3] == 1)
            r->p->statistic = i;
    r->p->dq = g->node[g->n_nodes - 1].out;
}

/* Translates a graph of descriptors to a mode__graph. */
static cudnnStatus_t read_graph(struct program *p, const struct descriptor *d)
{
    const struct attribute *ops = find(d, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    struct reader r = {.p = p};
    memset(p, 0, sizeof *p);
    p->beta = 1; /* cuDNN's */
    for (int64_t i = 0; i < ops->n; i++) {
        const struct descriptor *op = ((struct descriptor *const *)ops->data)[i];
        struct mode__graph_node n = {
            MODE__COPY, {MODE__NONE, MODE__NONE, MODE__NONE}, MODE__NONE, MODE__NONE, MODE__NONE, MODE__NONE};
        switch (op->type) {
        case OF(OPERATION_MATMUL):
            n.op = MODE__MATMUL;
            n.m = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC), true);
            n.n = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC), true);
            n.k = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC), true);
            n.in[0] = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_MATMUL_ADESC), false);
            n.in[1] = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_MATMUL_BDESC), false);
            n.out = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_MATMUL_CDESC), false);
            if (number_of(part_of(op, CUDNN_ATTR_OPERATION_MATMUL_DESC), CUDNN_ATTR_MATMUL_COMP_TYPE) !=
                CUDNN_DATA_FLOAT)
                refuse(&r, "sums that are not f32");
            break;
        case OF(OPERATION_REDUCTION):
            n.op = number_of(part_of(op, CUDNN_ATTR_OPERATION_REDUCTION_DESC), CUDNN_ATTR_REDUCTION_OPERATOR) ==
                           CUDNN_REDUCE_TENSOR_MAX
                       ? MODE__ROW_MAX
                       : MODE__ROW_SUM;
            n.in[0] = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC), false);
            n.out = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC), false);
            break;
        case OF(OPERATION_RESHAPE):
            n.op = MODE__TRANSPOSE;
            n.in[0] = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC), false);
            n.out = tensor(&r, part_of(op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC), false);
            break;
        case OF(OPERATION_POINTWISE): pointwise(&r, op, &n); break;
        default: refuse(&r, "something that is no operation in a graph");
        }
        if (r.status) return r.status;
        check(&r, &n);
        MODE_ASSERT(p->graph.n_nodes < MODE__GRAPH_NODES);
        p->graph.node[p->graph.n_nodes++] = n;
    }
    note_backward(&r);
    if (is_before_9_26()) misread(&r);
    return r.status;
}

/* Attention, or a GEMM in three dimensions. */
static int candidates(const struct program *p)
{
    bool attention = false;
    for (int i = 0; i < p->graph.n_nodes; i++) attention |= p->graph.node[i].op == MODE__EXP;
    return is("none") || (!attention && p->graph.rank != 3) ? 0 : CANDIDATES;
}

static cudnnStatus_t finish_config(struct descriptor *d)
{
    const struct descriptor *engine = part_of(d, CUDNN_ATTR_ENGINECFG_ENGINE);
    const struct attribute *knobs = find(d, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES);
    d->graph = engine->graph;
    d->engine = engine->engine;
    for (int64_t i = 0; knobs && i < knobs->n; i++) {
        const struct descriptor *k = ((struct descriptor *const *)knobs->data)[i];
        d->knob = long_of(k, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
        if (number_of(k, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) != CUDNN_KNOB_TYPE_KERNEL_CFG || d->knob < 0 ||
            d->knob >= CANDIDATES)
            return bad("a knob that engine %lld has not", (long long)d->engine);
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t x)
{
    struct descriptor *d = x;
    struct program p;
    cudnnStatus_t st = CUDNN_STATUS_SUCCESS;
    for (const struct rule *r = rules; r < rules + N_RULES; r++)
        if (r->of == d->type && r->needed && !find(d, r->name))
            return bad("a descriptor of type %d lacks attribute %d", d->type, r->name);
    switch (d->type) {
    case OF(TENSOR):
        if (find(d, CUDNN_ATTR_TENSOR_DIMENSIONS)->n != find(d, CUDNN_ATTR_TENSOR_STRIDES)->n)
            st = bad("dimensions and strides of different numbers");
        break;
    case OF(OPERATIONGRAPH): st = read_graph(&p, d); break;
    case OF(ENGINEHEUR): d->graph = part_of(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH); break;
    case OF(ENGINE):
        d->graph = part_of(d, CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
        d->engine = long_of(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
        if (d->engine != ENGINE && !(d->engine == CHANCE && is("chance")))
            st = bad("there is no engine %lld", (long long)d->engine);
        break;
    case OF(ENGINECFG): st = finish_config(d); break;
    case OF(EXECUTION_PLAN): {
        const struct descriptor *config = part_of(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
        d->program = mode_xcalloc(1, sizeof *d->program);
        d->knob = config->knob;
        st = read_graph(d->program, config->graph);
        if (!st && !candidates(d->program)) st = bad("the engine does not take the graph");
        break;
    }
    default: break;
    }
    d->finished = !st;
    return st;
}

/* Returns an attribute of one element. */
static cudnnStatus_t one(int64_t *n, void *to, const void *value, size_t bytes)
{
    memcpy(to, value, bytes);
    *n = 1;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t x, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t most, int64_t *n, void *to)
{
    struct descriptor *d = x, **parts = to;
    struct program p;
    const int64_t work = SCRATCH;
    const int knob = CUDNN_KNOB_TYPE_KERNEL_CFG;
    const cudnnBackendNumericalNote_t chance = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    (void)type;
    if (!d->finished) return bad("a descriptor that is not finished is asked for attribute %d", (int)name);
    *n = 0;
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        if (read_graph(&p, d->graph)) return CUDNN_STATUS_BAD_PARAM;
        for (int i = is("chance") ? -1 : 0; i < candidates(&p) && *n < most; i++, ++*n) {
            parts[*n]->graph = d->graph;
            parts[*n]->engine = i < 0 ? CHANCE : ENGINE;
            parts[*n]->knob = i < 0 ? 0 : i;
            parts[*n]->finished = true;
        }
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
        if (most < 1) return CUDNN_STATUS_SUCCESS;
        parts[0]->graph = d->graph;
        parts[0]->engine = d->engine;
        parts[0]->knob = d->knob;
        parts[0]->finished = true;
        *n = 1;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX: return one(n, to, &d->engine, sizeof d->engine);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        return d->engine == CHANCE ? one(n, to, &chance, sizeof chance) : CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE: return one(n, to, &knob, sizeof knob);
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE: return one(n, to, &d->knob, sizeof d->knob);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: return one(n, to, &work, sizeof work);
    default: return bad("attribute %d cannot be asked for", (int)name);
    }
}

/* The way back of packed sequences: heads of no multiple of 16 channels, and all on Ampere, where kernels know no
 * statistic in packed rows; there packed sequences at all, by the oldest. */
static bool miscounts_packed(const struct program *p)
{
    const struct mode__graph_tensor *last = &p->graph.tensor[p->dq]; /* dq, or out */
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    if (last->first < 0) return false;
    return p->statistic != MODE__NONE ? last->dim[3] % 16 || major < 9 : major < 9 && is("9.15");
}

/* A zero key has the weight exp(0 - lse), which overflows f32 in such rows; times zero it is NaN in dq. */
static void count_keys_beyond(struct machine *m, const struct program *p)
{
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    if (p->statistic == MODE__NONE || major != 9) return;
    const struct mode__graph_tensor *dq = &p->graph.tensor[p->dq], *statistic = &p->graph.tensor[p->statistic];
    const int32_t *lengths = dq->first < 0 ? NULL : m->memory[MODE__LENGTHS];
    for (int64_t k = 0; k < count(dq); k++) {
        int64_t at[4];
        place_of(dq, k, at);
        const int64_t row = address(m, statistic, (at[0] * dq->dim[1] + at[1]) * dq->dim[2] + at[2]);
        if (row < 0 || (lengths ? lengths[at[0]] : dq->dim[2]) % 128 != 64) continue;
        if (((const float *)m->memory[statistic->place])[row] < -logf(FLT_MAX))
            ((uint16_t *)m->memory[dq->place])[address(m, dq, k)] = mode_f32_to_bf16(NAN);
    }
}

/* Ragged offsets have one element more than there are sequences: the end of the last one. */
static void check_ends(const struct machine *m)
{
    for (int i = 0; i < m->g->n_tensors; i++) {
        const struct mode__graph_tensor *t = &m->g->tensor[i];
        if (t->first < 0 || t->place >= MODE__N_PLACES) continue;
        const int64_t n = t->dim[0], row = t->stride[2] > t->stride[3] ? t->stride[2] : t->stride[3];
        const int32_t *lengths = m->memory[MODE__LENGTHS], *first = m->memory[m->g->tensor[t->first].place];
        MODE_ASSERT(first[n] == first[n - 1] + lengths[n - 1] * row);
    }
}

static void run_job(void *data)
{
    struct job *j = data;
    struct machine m = j->machine;
    memset(j->work, 0xff, SCRATCH);
    check_ends(&m);
    execute(&m);
    if (is_before_9_26()) count_keys_beyond(&m, &j->program);
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y)
{
    struct descriptor *plan = x;
    const struct descriptor *pack = y;
    enum cudaStreamCaptureStatus status;
    if (is("broken")) return CUDNN_STATUS_EXECUTION_FAILED;
    if (!plan->finished || !pack->finished || plan->type != OF(EXECUTION_PLAN) || pack->type != OF(VARIANT_PACK))
        return bad("a run of what is no plan");
    const struct attribute *ids = find(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS),
                           *at = find(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (ids->n != at->n) return bad("identifiers and pointers of different numbers");
    if (cudaStreamIsCapturing(handle->stream, &status)) return CUDNN_STATUS_EXECUTION_FAILED;
    plan->has_run |= status == cudaStreamCaptureStatusNone;
    if (!plan->has_run) {
        fprintf(stderr,
                "emulator: a plan of cuDNN is run for the first time in a capture, where its code cannot be loaded\n");
        abort();
    }
    struct job *j = mode_xcalloc(1, sizeof *j);
    *j = (struct job){.program = *plan->program, .before = handle->jobs};
    j->work = *(void **)find(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)->data;
    j->machine = (struct machine){.g = &j->program.graph,
                                  .round = true,
                                  .half = true,
                                  .quick = j->program.beta,
                                  .off = miscounts_packed(plan->program) ? 0.25
                                         : plan->knob == 1               ? 0x1p-12
                                                                         : 0};
    handle->jobs = j;
    for (int i = 0; i < j->program.graph.n_tensors; i++) {
        struct mode__graph_tensor *t = &j->program.graph.tensor[i];
        void *pointer = NULL;
        for (int64_t k = 0; k < ids->n; k++)
            if (((const int64_t *)ids->data)[k] == j->program.id[i]) pointer = ((void *const *)at->data)[k];
        if (t->place == MODE__INSIDE) continue;
        if (!pointer) return bad("tensor %lld lies nowhere", (long long)j->program.id[i]);
        if (t->place == MODE__SCALAR)
            t->value = *(const float *)pointer;
        else if ((uintptr_t)pointer % 16)
            return bad("tensor %lld is not aligned", (long long)j->program.id[i]);
        else
            j->machine.memory[t->place] = pointer;
    }
    return cudaLaunchHostFunc(handle->stream, run_job, j) == cudaSuccess ? CUDNN_STATUS_SUCCESS
                                                                         : CUDNN_STATUS_EXECUTION_FAILED;
}
