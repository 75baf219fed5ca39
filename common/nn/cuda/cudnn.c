#include "nn/cuda/cudnn.h"

#include "base/str.h"

#include <cudnn_graph.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST = 91501 }; /* deploy/Dockerfile reads this line */
enum { ALIGNMENT = 16, CONFIGS = 16, DESCRIPTORS = 3 * MODE__GRAPH_NODES + MODE__GRAPH_TENSORS + MODE__CUDNN_KNOBS };

#define CALLS(X)                                                                                                       \
    X(cudnnGetVersion)                                                                                                 \
    X(cudnnGetErrorString)                                                                                             \
    X(cudnnGetLastErrorString)                                                                                         \
    X(cudnnCreate)                                                                                                     \
    X(cudnnDestroy)                                                                                                    \
    X(cudnnSetStream)                                                                                                  \
    X(cudnnBackendCreateDescriptor)                                                                                    \
    X(cudnnBackendDestroyDescriptor)                                                                                   \
    X(cudnnBackendFinalize)                                                                                            \
    X(cudnnBackendSetAttribute)                                                                                        \
    X(cudnnBackendGetAttribute)                                                                                        \
    X(cudnnBackendExecute)

struct mode__cudnn {
#define X(name) __typeof__(&name) name;
    CALLS(X)
#undef X
    cudnnHandle_t handle;            /* of the current GPU; NULL if the device is only described */
    cudnnBackendDescriptor_t device; /* then its properties, else NULL: a handle implies them */
};

struct mode__cudnn_plan {
    cudnnBackendDescriptor_t plan, part[DESCRIPTORS]; /* part: the graph's descriptors; they live as long as the plan */
    int n_parts;
    int64_t work;
    int candidate;
    bool can_be_kept; /* choice is complete */
    struct mode__cudnn_choice choice;
    char text[64];
    /* the variant pack of a run: unique ids are tensor indices + 1 */
    int n_bound;
    int64_t id[MODE__GRAPH_TENSORS];
    int place[MODE__GRAPH_TENSORS];
    float value[MODE__GRAPH_TENSORS]; /* of scalars, passed by value at each run */
};

static enum mode_status fail(const struct mode__cudnn *dnn, struct mode_error *err, const char *what, cudnnStatus_t st)
{
    char why[1024] = "";
    dnn->cudnnGetLastErrorString(why, sizeof why);
    return MODE_FAIL(err, MODE_E_DEVICE, "cuDNN %zu: %s: %s. %.140s", dnn->cudnnGetVersion(), what,
                     dnn->cudnnGetErrorString(st), why);
}

size_t mode__cudnn_version(const struct mode__cudnn *dnn)
{
    return dnn->cudnnGetVersion();
}

static enum mode_status load(struct mode__cudnn *dnn, struct mode_error *err)
{
    /* never unloaded, like cuBLAS: the libraries it loads and registers with the driver do not support that */
    static void *library;
    if (!library) library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!library) return MODE_FAIL(err, MODE_E_DEVICE, "libcudnn.so.9 cannot be loaded: %s", dlerror());
#define X(name)                                                                                                        \
    {                                                                                                                  \
        void *f = dlsym(library, #name);                                                                               \
        if (!f) return MODE_FAIL(err, MODE_E_DEVICE, "this libcudnn.so.9 has no %s", #name);                           \
        memcpy(&dnn->name, &f, sizeof f);                                                                              \
    }
    CALLS(X)
#undef X
    size_t v = dnn->cudnnGetVersion();
    if (v < OLDEST)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "cuDNN %zu.%zu.%zu is too old for attention: versions below 9.15.1 are known to be wrong",
                         v / 10000, v / 100 % 100, v % 100);
    return MODE_OK;
}

static enum mode_status describe_device(struct mode__cudnn *dnn, const char *device, struct mode_error *err)
{
    cudnnStatus_t st;
    if (!device) return (st = dnn->cudnnCreate(&dnn->handle)) ? fail(dnn, err, "a handle cannot be made", st) : MODE_OK;
    if ((st = dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &dnn->device)))
        return fail(dnn, err, "no descriptor of a device can be made", st);
    st = dnn->cudnnBackendSetAttribute(dnn->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                       (int64_t)strlen(device), device);
    if (!st) st = dnn->cudnnBackendFinalize(dnn->device);
    return st ? fail(dnn, err, "the device cannot be described", st) : MODE_OK;
}

enum mode_status mode__cudnn_open(struct mode__cudnn **dnn, const char *device, struct mode_error *err)
{
    *dnn = mode_xcalloc(1, sizeof **dnn);
    enum mode_status st = load(*dnn, err);
    if (!st) st = describe_device(*dnn, device, err);
    if (st) mode__cudnn_close(dnn);
    return st;
}

void mode__cudnn_close(struct mode__cudnn **dnn)
{
    if (!*dnn) return;
    if ((*dnn)->device) (void)(*dnn)->cudnnBackendDestroyDescriptor((*dnn)->device);
    if ((*dnn)->handle) (void)(*dnn)->cudnnDestroy((*dnn)->handle);
    free(*dnn);
    *dnn = NULL;
}

/* A plan under construction: the first failure is kept, later calls do nothing. */
struct build {
    struct mode__cudnn *dnn;
    struct mode__cudnn_plan *plan;
    cudnnStatus_t status;
    const char *what;
};

static void check(struct build *b, const char *what, cudnnStatus_t st)
{
    if (b->status || !st) return;
    b->status = st;
    b->what = what;
}

static cudnnBackendDescriptor_t make(struct build *b, cudnnBackendDescriptorType_t type, const char *what)
{
    cudnnBackendDescriptor_t d = NULL;
    if (!b->status) check(b, what, b->dnn->cudnnBackendCreateDescriptor(type, &d));
    return d;
}

/* A descriptor that lives as long as the plan */
static cudnnBackendDescriptor_t part(struct build *b, cudnnBackendDescriptorType_t type, const char *what)
{
    cudnnBackendDescriptor_t d = make(b, type, what);
    MODE_ASSERT(b->plan->n_parts < DESCRIPTORS);
    if (d) b->plan->part[b->plan->n_parts++] = d;
    return d;
}

static void set(struct build *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *value, const char *what)
{
    if (!b->status) check(b, what, b->dnn->cudnnBackendSetAttribute(d, name, type, n, value));
}

static void set_part(struct build *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t value, const char *what)
{
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value, what);
}

static void finish(struct build *b, cudnnBackendDescriptor_t d, const char *what)
{
    if (!b->status) check(b, what, b->dnn->cudnnBackendFinalize(d));
}

static cudnnDataType_t type_of(enum mode__graph_type t)
{
    static const cudnnDataType_t types[] = {[MODE__TYPE_BF16] = CUDNN_DATA_BFLOAT16,
                                            [MODE__TYPE_F32] = CUDNN_DATA_FLOAT,
                                            [MODE__TYPE_I32] = CUDNN_DATA_INT32,
                                            [MODE__TYPE_BOOL] = CUDNN_DATA_BOOLEAN};
    return types[t];
}

static cudnnBackendDescriptor_t tensor(struct build *b, const struct mode__graph_tensor *t, int rank, int64_t id,
                                       cudnnBackendDescriptor_t first)
{
    static const char what[] = "a tensor";
    cudnnBackendDescriptor_t d = part(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR, what);
    cudnnDataType_t type = type_of(t->type);
    int64_t alignment = ALIGNMENT;
    bool is_virtual = t->place == MODE__INSIDE, by_value = t->place == MODE__SCALAR;
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, rank, t->dim + 4 - rank, what);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, rank, t->stride + 4 - rank, what);
    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id, what);
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment, what);
    if (is_virtual) set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual, what);
    if (by_value) set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value, what);
    if (first) set_part(b, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, first, what);
    finish(b, d, what);
    return d;
}

static cudnnPointwiseMode_t pointwise_mode(enum mode__graph_op op)
{
    switch (op) {
    case MODE__MUL: return CUDNN_POINTWISE_MUL;
    case MODE__ADD: return CUDNN_POINTWISE_ADD;
    case MODE__SUB: return CUDNN_POINTWISE_SUB;
    case MODE__DIV: return CUDNN_POINTWISE_DIV;
    case MODE__EXP: return CUDNN_POINTWISE_EXP;
    case MODE__LOG: return CUDNN_POINTWISE_LOG;
    case MODE__ROW_INDEX:
    case MODE__COLUMN_INDEX: return CUDNN_POINTWISE_GEN_INDEX;
    case MODE__LESS: return CUDNN_POINTWISE_CMP_LT;
    case MODE__NOT_LESS: return CUDNN_POINTWISE_CMP_GE;
    case MODE__AND: return CUDNN_POINTWISE_LOGICAL_AND;
    case MODE__SELECT: return CUDNN_POINTWISE_BINARY_SELECT;
    case MODE__GELU: return CUDNN_POINTWISE_GELU_FWD;
    case MODE__QUICK_GELU: return CUDNN_POINTWISE_SWISH_FWD;
    case MODE__GELU_BACK: return CUDNN_POINTWISE_GELU_BWD;
    case MODE__QUICK_GELU_BACK: return CUDNN_POINTWISE_SWISH_BWD;
    default: return CUDNN_POINTWISE_IDENTITY;
    }
}

static cudnnBackendDescriptor_t pointwise(struct build *b, const struct mode__graph *g,
                                          const struct mode__graph_node *n, const cudnnBackendDescriptor_t *t)
{
    static const char what[] = "an operation by elements";
    cudnnBackendDescriptor_t how = part(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, what);
    cudnnPointwiseMode_t mode = pointwise_mode(n->op);
    cudnnDataType_t type = g->tensor[n->out].type == MODE__TYPE_BF16 ? CUDNN_DATA_FLOAT
                                                                     : type_of(g->tensor[n->out].type);
    int64_t axis = n->op == MODE__ROW_INDEX ? 2 : 3;
    const bool slope = n->op == MODE__GELU_BACK || n->op == MODE__QUICK_GELU_BACK;
    const double quick = MODE__QUICK;
    set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, what);
    set(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    if (mode == CUDNN_POINTWISE_GEN_INDEX) set(b, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis, what);
    if (n->op == MODE__QUICK_GELU || n->op == MODE__QUICK_GELU_BACK)
        set(b, how, CUDNN_ATTR_POINTWISE_SWISH_BETA, CUDNN_TYPE_DOUBLE, 1, &quick, what);
    finish(b, how, what);
    cudnnBackendDescriptor_t op = part(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, t[n->in[0]], what);
    if (n->in[1] >= 0)
        set_part(b, op, slope ? CUDNN_ATTR_OPERATION_POINTWISE_DYDESC : CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
                 t[n->in[1]], what);
    if (n->in[2] >= 0) set_part(b, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t[n->in[2]], what);
    set_part(b, op, slope ? CUDNN_ATTR_OPERATION_POINTWISE_DXDESC : CUDNN_ATTR_OPERATION_POINTWISE_YDESC, t[n->out],
             what);
    finish(b, op, what);
    return op;
}

static cudnnBackendDescriptor_t matmul(struct build *b, const struct mode__graph_node *n,
                                       const cudnnBackendDescriptor_t *t)
{
    static const char what[] = "a matrix product";
    cudnnBackendDescriptor_t how = part(b, CUDNN_BACKEND_MATMUL_DESCRIPTOR, what);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    set(b, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    finish(b, how, what);
    cudnnBackendDescriptor_t op = part(b, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, t[n->in[0]], what);
    set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, t[n->in[1]], what);
    set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, t[n->out], what);
    if (n->m >= 0) set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, t[n->m], what);
    if (n->n >= 0) set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, t[n->n], what);
    if (n->k >= 0) set_part(b, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, t[n->k], what);
    finish(b, op, what);
    return op;
}

static cudnnBackendDescriptor_t reduction(struct build *b, const struct mode__graph_node *n,
                                          const cudnnBackendDescriptor_t *t)
{
    static const char what[] = "a sum or maximum over rows";
    cudnnBackendDescriptor_t how = part(b, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, what);
    cudnnReduceTensorOp_t kind = n->op == MODE__ROW_MAX ? CUDNN_REDUCE_TENSOR_MAX : CUDNN_REDUCE_TENSOR_ADD;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    set(b, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &kind, what);
    set(b, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    finish(b, how, what);
    cudnnBackendDescriptor_t op = part(b, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, t[n->in[0]], what);
    set_part(b, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, t[n->out], what);
    finish(b, op, what);
    return op;
}

static cudnnBackendDescriptor_t transpose(struct build *b, const struct mode__graph_node *n,
                                          const cudnnBackendDescriptor_t *t)
{
    static const char what[] = "a transpose";
    cudnnBackendDescriptor_t op = part(b, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, what);
    set_part(b, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, t[n->in[0]], what);
    set_part(b, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, t[n->out], what);
    finish(b, op, what);
    return op;
}

static cudnnBackendDescriptor_t operations(struct build *b, const struct mode__graph *g)
{
    static const char what[] = "the graph of operations";
    cudnnBackendDescriptor_t t[MODE__GRAPH_TENSORS], op[MODE__GRAPH_NODES];
    for (int i = 0; i < g->n_tensors; i++) { /* ragged offsets come before the tensors that use them */
        int first = g->tensor[i].first;
        MODE_ASSERT(first < i);
        t[i] = tensor(b, &g->tensor[i], g->rank, i + 1, first >= 0 ? t[first] : NULL);
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const struct mode__graph_node *n = &g->node[i];
        switch (n->op) {
        case MODE__MATMUL: op[i] = matmul(b, n, t); break;
        case MODE__ROW_MAX:
        case MODE__ROW_SUM: op[i] = reduction(b, n, t); break;
        case MODE__TRANSPOSE: op[i] = transpose(b, n, t); break;
        default: op[i] = pointwise(b, g, n, t);
        }
    }
    cudnnBackendDescriptor_t graph = part(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, what);
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_nodes, op, what);
    if (b->dnn->handle) set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->dnn->handle, what);
    finish(b, graph, what);
    return graph;
}

/* True if the engine of this configuration has the numerical note NONDETERMINISTIC, or cannot be queried. */
static bool is_nondeterministic(const struct build *b, cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t engine,
                                int64_t *number)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t n = 0;
    *number = -1;
    if (b->dnn->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                         &engine))
        return true;
    (void)b->dnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, number);
    if (b->dnn->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                         CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes))
        return true;
    for (int64_t i = 0; i < n; i++)
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) return true;
    return false;
}

/* Stores the engine's number and knobs, so that the plan can be recreated. */
static void keep_choice(const struct build *b, cudnnBackendDescriptor_t config, int64_t engine)
{
    enum { ROOM = 4 * MODE__CUDNN_KNOBS };
    struct mode__cudnn_plan *p = b->plan;
    cudnnBackendDescriptor_t knob[ROOM] = {NULL};
    int64_t n = 0, one;
    cudnnStatus_t st = CUDNN_STATUS_SUCCESS;
    p->choice = (struct mode__cudnn_choice){.engine = engine};
    for (int i = 0; i < ROOM && !st; i++)
        st = b->dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]);
    if (!st)
        st = b->dnn->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                              ROOM, &n, knob);
    p->can_be_kept = !st && n <= MODE__CUDNN_KNOBS;
    for (int i = 0; i < n && p->can_be_kept; i++) {
        cudnnBackendKnobType_t kind = CUDNN_KNOB_TYPE_COUNTS;
        st = b->dnn->cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &one,
                                              &kind);
        if (!st)
            st = b->dnn->cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &one,
                                                  &p->choice.knob[i].value);
        p->choice.knob[i].kind = kind;
        p->choice.n_knobs = i + 1;
        p->can_be_kept = !st;
    }
    for (int i = 0; i < ROOM; i++)
        if (knob[i]) (void)b->dnn->cudnnBackendDestroyDescriptor(knob[i]);
}

/* Finalises an engine configuration into the plan; returns cuDNN's status. */
static cudnnStatus_t realise(struct build *b, cudnnBackendDescriptor_t config)
{
    cudnnBackendDescriptor_t plan = NULL;
    int64_t one = 0;
    cudnnStatus_t st = b->dnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
    if (!st)
        st = b->dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                              CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (!st)
        st = b->dnn->handle ? b->dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                                                               CUDNN_TYPE_HANDLE, 1, &b->dnn->handle)
                            : b->dnn->cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &b->dnn->device);
    if (!st) st = b->dnn->cudnnBackendFinalize(plan);
    if (!st)
        st = b->dnn->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &one,
                                              &b->plan->work);
    if (!st)
        b->plan->plan = plan;
    else if (plan)
        (void)b->dnn->cudnnBackendDestroyDescriptor(plan);
    return st;
}

/* The plan of the first configuration, from number `from` on, that can be finalised. */
static void choose(struct build *b, cudnnBackendDescriptor_t heuristic, cudnnBackendDescriptor_t config[CONFIGS],
                   cudnnBackendDescriptor_t engine, bool deterministic, int from)
{
    static const char what[] = "a plan";
    int64_t n = 0, n_nondeterministic = 0, number = -1;
    cudnnStatus_t last = CUDNN_STATUS_NOT_SUPPORTED;
    if (!b->status)
        check(b, "the engines for the graph",
              b->dnn->cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                               CONFIGS, &n, config));
    if (b->status) return;
    for (int64_t i = from; i < n; i++) {
        if (is_nondeterministic(b, config[i], engine, &number) && deterministic) {
            n_nondeterministic++;
            continue;
        }
        last = realise(b, config[i]);
        if (last) continue;
        b->plan->candidate = (int)i;
        keep_choice(b, config[i], number);
        snprintf(b->plan->text, sizeof b->plan->text, "engine %lld, candidate %lld of %lld", (long long)number,
                 (long long)i + 1, (long long)n);
        return;
    }
    check(b,
          n == 0                           ? "no engine takes the graph"
          : from >= n                      ? "there are no more candidates"
          : n_nondeterministic == n - from ? "no engine gives the same bytes each time"
                                           : what,
          last);
}

static void plan_graph(struct build *b, cudnnBackendDescriptor_t graph, bool deterministic, int from)
{
    static const char what[] = "the choice of an engine";
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t config[CONFIGS] = {NULL}, heuristic, engine;
    heuristic = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, what);
    engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR, what);
    for (int i = 0; i < CONFIGS; i++) config[i] = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, what);
    set_part(b, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, what);
    set(b, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, what);
    if (b->dnn->device) set_part(b, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, b->dnn->device, what);
    finish(b, heuristic, what);
    choose(b, heuristic, config, engine, deterministic, from);
    for (int i = 0; i < CONFIGS; i++)
        if (config[i]) (void)b->dnn->cudnnBackendDestroyDescriptor(config[i]);
    if (engine) (void)b->dnn->cudnnBackendDestroyDescriptor(engine);
    if (heuristic) (void)b->dnn->cudnnBackendDestroyDescriptor(heuristic);
}

/* The plan of a stored choice, without the heuristics. */
static void plan_choice(struct build *b, cudnnBackendDescriptor_t graph, const struct mode__cudnn_choice *choice)
{
    static const char what[] = "an engine that was chosen before";
    cudnnBackendDescriptor_t knob[MODE__CUDNN_KNOBS], engine = part(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR, what);
    set_part(b, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph, what);
    set(b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &choice->engine, what);
    if (b->dnn->device) set_part(b, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, b->dnn->device, what);
    finish(b, engine, what);
    for (int i = 0; i < choice->n_knobs; i++) {
        cudnnBackendKnobType_t kind = (cudnnBackendKnobType_t)choice->knob[i].kind;
        knob[i] = part(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, what);
        set(b, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &kind, what);
        set(b, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &choice->knob[i].value, what);
        finish(b, knob[i], what);
    }
    cudnnBackendDescriptor_t config = part(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, what);
    set_part(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, engine, what);
    if (choice->n_knobs)
        set(b, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, choice->n_knobs, knob, what);
    finish(b, config, what);
    if (!b->status) check(b, what, realise(b, config));
    b->plan->choice = *choice;
    b->plan->can_be_kept = true;
    snprintf(b->plan->text, sizeof b->plan->text, "engine %lld, as it was chosen before", (long long)choice->engine);
}

static enum mode_status make_plan(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan, const struct mode__graph *g,
                                  bool deterministic, int from, const struct mode__cudnn_choice *choice,
                                  struct mode_error *err)
{
    struct mode__cudnn_plan *p = *plan = mode_xcalloc(1, sizeof *p);
    struct build b = {.dnn = dnn, .plan = p};
    cudnnBackendDescriptor_t graph = operations(&b, g);
    choice ? plan_choice(&b, graph, choice) : plan_graph(&b, graph, deterministic, from);
    for (int i = 0; i < g->n_tensors; i++) {
        if (g->tensor[i].place == MODE__INSIDE) continue;
        p->id[p->n_bound] = i + 1;
        p->place[p->n_bound] = g->tensor[i].place;
        p->value[p->n_bound++] = g->tensor[i].value;
    }
    if (!b.status) return MODE_OK;
    enum mode_status st = fail(dnn, err, b.what, b.status);
    mode__cudnn_plan_free(dnn, plan);
    return st;
}

enum mode_status mode__cudnn_plan(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan, const struct mode__graph *g,
                                  bool deterministic, int from, struct mode_error *err)
{
    return make_plan(dnn, plan, g, deterministic, from, NULL, err);
}

enum mode_status mode__cudnn_plan_again(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan,
                                        const struct mode__graph *g, const struct mode__cudnn_choice *choice,
                                        struct mode_error *err)
{
    return make_plan(dnn, plan, g, true, 0, choice, err);
}

void mode__cudnn_plan_free(struct mode__cudnn *dnn, struct mode__cudnn_plan **plan)
{
    struct mode__cudnn_plan *p = *plan;
    if (!p) return;
    if (p->plan) (void)dnn->cudnnBackendDestroyDescriptor(p->plan);
    while (p->n_parts > 0) (void)dnn->cudnnBackendDestroyDescriptor(p->part[--p->n_parts]);
    free(p);
    *plan = NULL;
}

size_t mode__cudnn_plan_work(const struct mode__cudnn_plan *plan)
{
    return (size_t)plan->work;
}

int mode__cudnn_plan_candidate(const struct mode__cudnn_plan *plan)
{
    return plan->candidate;
}

const struct mode__cudnn_choice *mode__cudnn_plan_choice(const struct mode__cudnn_plan *plan)
{
    return plan->can_be_kept ? &plan->choice : NULL;
}

const char *mode__cudnn_plan_text(const struct mode__cudnn_plan *plan)
{
    return plan->text;
}

enum mode_status mode__cudnn_run(struct mode__cudnn *dnn, const struct mode__cudnn_plan *plan, void *stream,
                                 void *const *pointer, void *work, struct mode_error *err)
{
    static const char what[] = "the pointers of a run";
    void *at[MODE__GRAPH_TENSORS];
    float value[MODE__GRAPH_TENSORS];
    struct build b = {.dnn = dnn};
    memcpy(value, plan->value, sizeof value);
    for (int i = 0; i < plan->n_bound; i++)
        at[i] = plan->place[i] == MODE__SCALAR ? (void *)&value[i] : pointer[plan->place[i]];
    cudnnBackendDescriptor_t pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, what);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, plan->n_bound, plan->id, what);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, plan->n_bound, at, what);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &work, what);
    finish(&b, pack, what);
    if (!b.status) check(&b, "the stream of a run", dnn->cudnnSetStream(dnn->handle, stream));
    if (!b.status) check(&b, "a run", dnn->cudnnBackendExecute(dnn->handle, plan->plan, pack));
    enum mode_status st = b.status ? fail(dnn, err, b.what, b.status) : MODE_OK;
    if (pack) (void)dnn->cudnnBackendDestroyDescriptor(pack);
    return st;
}
