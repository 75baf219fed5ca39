/* DESIGN: values are made in the scratch block and never freed; the stack, the marks and the memo are arrays of
 * pointers that double in it. Every opcode consumes at least one byte, so the work is bounded by the input's length. */
#include "data/pickle.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void *mode_scratch_take(struct mode_scratch *s, size_t n, size_t size)
{
    size_t bytes;
    if (!mode_mul_size(n, size, &bytes) || bytes > s->size) return NULL;
    bytes = (bytes + 15) / 16 * 16;
    if (bytes > s->size - s->used) return NULL;
    void *p = s->base + s->used;
    s->used += bytes;
    memset(p, 0, bytes);
    return p;
}

/* ---- the names that are allowed ------------------------------------------------------------------------- */

enum call {
    CALL_STORAGE, /* a storage class: occurs in persistent ids, is never called */
    CALL_TENSOR,
    CALL_PARAMETER,
    CALL_DICT,
    CALL_SAME,  /* f(x) is x: torch.Size, the typed lists of TorchScript */
    CALL_OTHER, /* result is ignored */
    CALL_NEVER  /* a constant: torch.float32 */
};

static const struct name {
    const char *module, *name;
    enum call call;
    enum mode_dtype dtype;
} names[] = {
    {"torch._utils", "_rebuild_tensor_v2", CALL_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor", CALL_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", CALL_PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", CALL_PARAMETER, 0},
    {"collections", "OrderedDict", CALL_DICT, 0},
    {"torch", "Size", CALL_SAME, 0},
    {"torch", "FloatStorage", CALL_STORAGE, MODE_DTYPE_F32},
    {"torch", "DoubleStorage", CALL_STORAGE, MODE_DTYPE_F64},
    {"torch", "HalfStorage", CALL_STORAGE, MODE_DTYPE_F16},
    {"torch", "BFloat16Storage", CALL_STORAGE, MODE_DTYPE_BF16},
    {"torch", "LongStorage", CALL_STORAGE, MODE_DTYPE_I64},
    {"torch", "IntStorage", CALL_STORAGE, MODE_DTYPE_I32},
    {"torch", "ShortStorage", CALL_STORAGE, MODE_DTYPE_I16},
    {"torch", "CharStorage", CALL_STORAGE, MODE_DTYPE_I8},
    {"torch", "ByteStorage", CALL_STORAGE, MODE_DTYPE_U8},
    {"torch", "BoolStorage", CALL_STORAGE, MODE_DTYPE_BOOL},
    {"torch", "device", CALL_OTHER, 0},
    {"torch", "float32", CALL_NEVER, 0},
    {"torch", "float64", CALL_NEVER, 0},
    {"torch", "float16", CALL_NEVER, 0},
    {"torch", "bfloat16", CALL_NEVER, 0},
    {"torch", "int64", CALL_NEVER, 0},
    {"torch", "int32", CALL_NEVER, 0},
    {"torch.jit._pickle", "build_intlist", CALL_SAME, 0},
    {"torch.jit._pickle", "build_doublelist", CALL_SAME, 0},
    {"torch.jit._pickle", "build_boollist", CALL_SAME, 0},
    {"torch.jit._pickle", "build_tensorlist", CALL_SAME, 0},
    {"torch.jit._pickle", "restore_type_tag", CALL_SAME, 0},
    {"numpy.core.multiarray", "scalar", CALL_OTHER, 0},
    {"numpy._core.multiarray", "scalar", CALL_OTHER, 0},
    {"numpy", "dtype", CALL_OTHER, 0},
    {"_codecs", "encode", CALL_OTHER, 0},
    {"__builtin__", "set", CALL_OTHER, 0},
    {"builtins", "set", CALL_OTHER, 0},
};
enum { N_NAMES = sizeof names / sizeof names[0], NAME_SCRIPT = N_NAMES /* a class of TorchScript: only attributes */ };
static const char script[] = "__torch__.";

/* ---- the machine ---------------------------------------------------------------------------------------- */

struct stack {
    struct mode_pickle_value **item;
    size_t n, cap;
};

struct machine {
    struct mode_scratch *scratch;
    const uint8_t *data;
    size_t size, at, op_at;
    const char *what;
    struct stack stack, memo;
    struct mode_pickle_value *storages;
    size_t *mark;
    size_t n_marks, cap_marks;
    struct mode_error *err;
};

/* A macro, so that the compiler sees that it never returns MODE_OK. */
#define refuse(m, ...) (say((m), __VA_ARGS__), MODE_E_FORMAT)

static void say(struct machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct machine *m, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || (unsigned char)*p > '~') *p = '?';
    (void)MODE_FAIL(m->err, MODE_E_FORMAT, "byte %zu of %s: %s", m->op_at, m->what, text);
}

static enum mode_status no_memory(struct machine *m)
{
    (void)MODE_FAIL(m->err, MODE_E_MEMORY, "byte %zu of %s: the pickle needs more than the %zu bytes it may take",
                    m->op_at, m->what, m->scratch->size);
    return MODE_E_MEMORY;
}

static enum mode_status push_on(struct machine *m, struct stack *s, struct mode_pickle_value *v)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 16;
        struct mode_pickle_value **item = mode_scratch_take(m->scratch, cap, sizeof *item);
        if (!item) return no_memory(m);
        if (s->n) memcpy(item, s->item, s->n * sizeof *item);
        s->item = item;
        s->cap = cap;
    }
    s->item[s->n++] = v;
    return MODE_OK;
}

static enum mode_status push_new(struct machine *m, struct mode_pickle_value **v, enum mode_pickle_kind kind)
{
    *v = mode_scratch_take(m->scratch, 1, sizeof **v);
    if (!*v) return no_memory(m);
    (*v)->kind = kind;
    return push_on(m, &m->stack, *v);
}

static enum mode_status append(struct machine *m, struct mode_pickle_value *list, struct mode_pickle_value *v)
{
    struct stack s = {list->as.list.item, list->as.list.n, list->as.list.cap};
    enum mode_status st = push_on(m, &s, v);
    list->as.list.item = s.item;
    list->as.list.n = s.n;
    list->as.list.cap = s.cap;
    return st;
}

/* Pops the top value, but never below a mark. */
static enum mode_status pop(struct machine *m, struct mode_pickle_value **v)
{
    size_t floor = m->n_marks ? m->mark[m->n_marks - 1] : 0;
    if (m->stack.n <= floor) return refuse(m, "the stack is empty");
    *v = m->stack.item[--m->stack.n];
    return MODE_OK;
}

static enum mode_status peek(struct machine *m, struct mode_pickle_value **v)
{
    enum mode_status st = pop(m, v);
    if (!st) m->stack.n++;
    return st;
}

static enum mode_status push_mark(struct machine *m)
{
    if (m->n_marks == m->cap_marks) {
        size_t cap = m->cap_marks ? 2 * m->cap_marks : 16, *mark = mode_scratch_take(m->scratch, cap, sizeof *mark);
        if (!mark) return no_memory(m);
        if (m->n_marks) memcpy(mark, m->mark, m->n_marks * sizeof *mark);
        m->mark = mark;
        m->cap_marks = cap;
    }
    m->mark[m->n_marks++] = m->stack.n;
    return MODE_OK;
}

/* Pops the values above the last mark, and the mark; they stay readable until the next push. */
static enum mode_status pop_mark(struct machine *m, struct mode_pickle_value ***item, size_t *n)
{
    if (m->n_marks == 0) return refuse(m, "there is no mark");
    size_t from = m->mark[--m->n_marks];
    *n = m->stack.n - from;
    *item = m->stack.item ? m->stack.item + from : NULL;
    m->stack.n = from;
    return MODE_OK;
}

static enum mode_status bytes(struct machine *m, const uint8_t **p, uint64_t n)
{
    if (n > m->size - m->at) return refuse(m, "ends in the middle of an argument. HINT: a truncated download?");
    *p = m->data + m->at;
    m->at += (size_t)n;
    return MODE_OK;
}

static enum mode_status number(struct machine *m, uint64_t *value, int n_bytes)
{
    const uint8_t *p;
    enum mode_status st = bytes(m, &p, (uint64_t)n_bytes);
    *value = 0;
    for (int i = 0; !st && i < n_bytes; i++) *value |= (uint64_t)p[i] << (8 * i);
    return st;
}

static enum mode_status push_int(struct machine *m, int64_t integer, enum mode_pickle_kind kind)
{
    struct mode_pickle_value *v;
    enum mode_status st = push_new(m, &v, kind);
    if (!st) v->as.integer = integer;
    return st;
}

/* Pushes a text or bytes whose length field has n_bytes. */
static enum mode_status push_text(struct machine *m, int n_bytes, enum mode_pickle_kind kind)
{
    struct mode_pickle_value *v;
    const uint8_t *p;
    uint64_t n;
    enum mode_status st = number(m, &n, n_bytes);
    if (!st) st = bytes(m, &p, n);
    if (!st) st = push_new(m, &v, kind);
    if (st) return st;
    v->as.text.data = (const char *)p;
    v->as.text.size = (size_t)n;
    return MODE_OK;
}

static enum mode_status push_long(struct machine *m)
{
    const uint8_t *p;
    uint64_t n, x = 0;
    enum mode_status st = number(m, &n, 1);
    if (!st) st = bytes(m, &p, n);
    if (st) return st;
    if (n > 8) {
        m->at -= (size_t)n + 1;
        return push_text(m, 1, MODE_PICKLE_BYTES);
    }
    for (uint64_t i = 0; i < n; i++) x |= (uint64_t)p[i] << (8 * i);
    if (n > 0 && n < 8 && p[n - 1] & 0x80) x |= ~UINT64_C(0) << (8 * n);
    return push_int(m, (int64_t)x, MODE_PICKLE_INT);
}

static enum mode_status push_real(struct machine *m)
{
    struct mode_pickle_value *v;
    const uint8_t *p;
    uint64_t bits = 0;
    enum mode_status st = bytes(m, &p, 8);
    if (!st) st = push_new(m, &v, MODE_PICKLE_REAL);
    if (st) return st;
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i]; /* the only big-endian number of the format */
    memcpy(&v->as.real, &bits, sizeof bits);
    return MODE_OK;
}

static enum mode_status push_items(struct machine *m, enum mode_pickle_kind kind, struct mode_pickle_value **item,
                                   size_t n)
{
    struct mode_pickle_value *v = mode_scratch_take(m->scratch, 1, sizeof *v);
    if (!v) return no_memory(m);
    v->kind = kind;
    if (n) {
        v->as.list.item = mode_scratch_take(m->scratch, n, sizeof *item);
        if (!v->as.list.item) return no_memory(m);
        memcpy(v->as.list.item, item, n * sizeof *item);
        v->as.list.n = v->as.list.cap = n;
    }
    return push_on(m, &m->stack, v);
}

static enum mode_status push_marked(struct machine *m, enum mode_pickle_kind kind)
{
    struct mode_pickle_value **item;
    size_t n;
    enum mode_status st = pop_mark(m, &item, &n);
    if (!st && kind == MODE_PICKLE_DICT && n % 2) return refuse(m, "a key without a value");
    return st ? st : push_items(m, kind, item, n);
}

static enum mode_status push_tuple(struct machine *m, size_t n)
{
    struct mode_pickle_value *item[3], *v;
    for (size_t i = n; i-- > 0;) {
        enum mode_status st = pop(m, &v);
        if (st) return st;
        item[i] = v;
    }
    return push_items(m, MODE_PICKLE_TUPLE, item, n);
}

/* APPEND(S), ADDITEMS to a list, SETITEM(S) to a dict: n values lie above it. */
static enum mode_status extend(struct machine *m, struct mode_pickle_value **item, size_t n, bool pairs)
{
    struct mode_pickle_value *to;
    enum mode_status st = peek(m, &to);
    if (st) return st;
    if (to->kind == MODE_PICKLE_OTHER) return MODE_OK;
    if (to->kind != (pairs ? MODE_PICKLE_DICT : MODE_PICKLE_LIST))
        return refuse(m, "values are added to something that is not a %s", pairs ? "dict" : "list");
    if (pairs && n % 2) return refuse(m, "a key without a value");
    for (size_t i = 0; !st && i < n; i++) st = append(m, to, item[i]);
    return st;
}

static enum mode_status extend_marked(struct machine *m, bool pairs)
{
    struct mode_pickle_value **item;
    size_t n;
    enum mode_status st = pop_mark(m, &item, &n);
    return st ? st : extend(m, item, n, pairs);
}

static enum mode_status extend_top(struct machine *m, bool pairs)
{
    struct mode_pickle_value *item[2];
    enum mode_status st = pop(m, &item[pairs]);
    if (!st && pairs) st = pop(m, &item[0]);
    return st ? st : extend(m, item, pairs ? 2 : 1, pairs);
}

/* ---- memo ------------------------------------------------------------------------------------------------ */

static enum mode_status memo_put(struct machine *m, uint64_t i)
{
    struct mode_pickle_value *v;
    enum mode_status st = peek(m, &v);
    if (st) return st;
    if (i < m->memo.n) {
        m->memo.item[i] = v;
        return MODE_OK;
    }
    /* picklers count from 0; a gap would only serve to enlarge the table */
    if (i > m->memo.n + 1024) return refuse(m, "memo %llu after %zu", (unsigned long long)i, m->memo.n);
    while (!st && m->memo.n < i) st = push_on(m, &m->memo, NULL);
    return st ? st : push_on(m, &m->memo, v);
}

static enum mode_status memo_get(struct machine *m, uint64_t i)
{
    if (i >= m->memo.n || !m->memo.item[i]) return refuse(m, "memo %llu was never set", (unsigned long long)i);
    return push_on(m, &m->stack, m->memo.item[i]);
}

/* ---- names and calls ------------------------------------------------------------------------------------- */

static bool same(const char *text, size_t n, const char *want)
{
    return n == strlen(want) && memcmp(text, want, n) == 0;
}

static enum mode_status push_name(struct machine *m, const char *module, size_t n_module, const char *name,
                                  size_t n_name)
{
    int64_t found = -1;
    for (int64_t i = 0; i < N_NAMES; i++)
        if (same(module, n_module, names[i].module) && same(name, n_name, names[i].name)) found = i;
    if (n_module >= sizeof script - 1 && memcmp(module, script, sizeof script - 1) == 0) found = NAME_SCRIPT;
    if (found < 0)
        return refuse(m,
                      "the pickle asks for %.*s.%.*s, which no dict of tensors needs; nothing was run. HINT: "
                      "torch.save(model.state_dict(), ...) is what can be read",
                      (int)(n_module < 100 ? n_module : 100), module, (int)(n_name < 100 ? n_name : 100), name);
    return push_int(m, found, MODE_PICKLE_NAME);
}

static enum mode_status line(struct machine *m, const char **text, size_t *n)
{
    const uint8_t *end = m->at < m->size ? memchr(m->data + m->at, '\n', m->size - m->at) : NULL;
    if (!end) return refuse(m, "ends in the middle of a name");
    *text = (const char *)m->data + m->at;
    *n = (size_t)(end - (m->data + m->at));
    m->at += *n + 1;
    return MODE_OK;
}

static enum mode_status op_global(struct machine *m)
{
    const char *module, *name;
    size_t n_module, n_name;
    enum mode_status st = line(m, &module, &n_module);
    if (!st) st = line(m, &name, &n_name);
    return st ? st : push_name(m, module, n_module, name, n_name);
}

static enum mode_status op_stack_global(struct machine *m)
{
    struct mode_pickle_value *module, *name;
    enum mode_status st = pop(m, &name);
    if (!st) st = pop(m, &module);
    if (st) return st;
    if (module->kind != MODE_PICKLE_TEXT || name->kind != MODE_PICKLE_TEXT)
        return refuse(m, "a name that is not a string");
    return push_name(m, module->as.text.data, module->as.text.size, name->as.text.data, name->as.text.size);
}

static struct mode_pickle_value *argument(const struct mode_pickle_value *args, size_t i, enum mode_pickle_kind kind)
{
    return i < args->as.list.n && args->as.list.item[i]->kind == kind ? args->as.list.item[i] : NULL;
}

/* ("storage", class, key, location, count[, view]) */
static enum mode_status op_persistent_id(struct machine *m)
{
    struct mode_pickle_value *id, *v;
    enum mode_status st = pop(m, &id);
    if (st) return st;
    if (id->kind != MODE_PICKLE_TUPLE) return refuse(m, "a persistent id that is not a tuple");
    size_t n = id->as.list.n;
    struct mode_pickle_value *class = argument(id, 1, MODE_PICKLE_NAME), *key = argument(id, 2, MODE_PICKLE_TEXT),
                             *count = argument(id, 4, MODE_PICKLE_INT);
    if (n < 5 || n > 6 || !mode_pickle_is_text(id->as.list.item[0], "storage") || !class || !key || !count ||
        class->as.integer == NAME_SCRIPT || names[class->as.integer].call != CALL_STORAGE || count->as.integer < 0)
        return refuse(m, "a persistent id that does not name a storage");
    if (n == 6 && id->as.list.item[5]->kind != MODE_PICKLE_NONE)
        return refuse(m, "a storage that is a view of another (PyTorch before 0.4)");
    if ((st = push_new(m, &v, MODE_PICKLE_STORAGE))) return st;
    v->as.storage.dtype = names[class->as.integer].dtype;
    v->as.storage.key = key;
    v->as.storage.count = count->as.integer;
    v->as.storage.next = m->storages;
    m->storages = v;
    return MODE_OK;
}

/* (storage, offset, size, stride, ...): the view must lie in the storage. */
static enum mode_status make_tensor(struct machine *m, const struct mode_pickle_value *args)
{
    struct mode_pickle_value *storage = argument(args, 0, MODE_PICKLE_STORAGE),
                             *offset = argument(args, 1, MODE_PICKLE_INT), *size = argument(args, 2, MODE_PICKLE_TUPLE),
                             *stride = argument(args, 3, MODE_PICKLE_TUPLE), *v;
    if (!storage || !offset || !size || !stride || offset->as.integer < 0 || size->as.list.n != stride->as.list.n)
        return refuse(m, "a tensor must be made of storage, offset, size and stride");
    if (size->as.list.n > MODE_MAX_DIMS)
        return refuse(m, "a tensor of %zu dimensions, at most %d are read", size->as.list.n, MODE_MAX_DIMS);
    enum mode_status st = push_new(m, &v, MODE_PICKLE_TENSOR);
    if (st) return st;
    int64_t last = offset->as.integer, elements = 1;
    v->as.tensor.storage = storage;
    v->as.tensor.offset = offset->as.integer;
    v->as.tensor.n_dims = (int)size->as.list.n;
    for (int i = 0; i < MODE_MAX_DIMS; i++) v->as.tensor.dim[i] = 1;
    for (size_t i = 0; i < size->as.list.n; i++) {
        struct mode_pickle_value *d = argument(size, i, MODE_PICKLE_INT), *s = argument(stride, i, MODE_PICKLE_INT);
        int64_t span;
        if (!d || !s || d->as.integer < 0 || s->as.integer < 0)
            return refuse(m, "extent or stride %zu of a tensor is not a count", i);
        v->as.tensor.dim[i] = d->as.integer;
        v->as.tensor.stride[i] = s->as.integer;
        if (__builtin_mul_overflow(elements, d->as.integer, &elements))
            return refuse(m, "the size of a tensor overflows");
        if (d->as.integer > 0 && (__builtin_mul_overflow(d->as.integer - 1, s->as.integer, &span) ||
                                  __builtin_add_overflow(last, span, &last)))
            return refuse(m, "the extent of a tensor overflows");
    }
    if (elements > 0 && last >= storage->as.storage.count)
        return refuse(m, "a tensor reaches element %lld of a storage of %lld", (long long)last,
                      (long long)storage->as.storage.count);
    if (elements > storage->as.storage.count)
        return refuse(m,
                      "a tensor of %lld elements repeats a storage of %lld; repeated (expanded) tensors are not read",
                      (long long)elements, (long long)storage->as.storage.count);
    return MODE_OK;
}

static enum mode_status make_dict(struct machine *m, const struct mode_pickle_value *args)
{
    struct mode_pickle_value *v;
    enum mode_status st = push_new(m, &v, MODE_PICKLE_DICT);
    if (st || args->as.list.n == 0) return st;
    struct mode_pickle_value *pairs = argument(args, 0, MODE_PICKLE_LIST);
    if (!pairs || args->as.list.n > 1) return refuse(m, "an OrderedDict must be made of nothing or of pairs");
    for (size_t i = 0; !st && i < pairs->as.list.n; i++) {
        struct mode_pickle_value *p = pairs->as.list.item[i];
        if ((p->kind != MODE_PICKLE_LIST && p->kind != MODE_PICKLE_TUPLE) || p->as.list.n != 2)
            return refuse(m, "an OrderedDict must be made of nothing or of pairs");
        st = append(m, v, p->as.list.item[0]);
        if (!st) st = append(m, v, p->as.list.item[1]);
    }
    return st;
}

static enum mode_status op_call(struct machine *m, bool is_new)
{
    struct mode_pickle_value *args, *f, *v;
    enum mode_status st = pop(m, &args);
    if (!st) st = pop(m, &f);
    if (st) return st;
    if (f->kind != MODE_PICKLE_NAME || args->kind != MODE_PICKLE_TUPLE)
        return refuse(m, "a call of something that is not a function");
    if (f->as.integer == NAME_SCRIPT) {
        if (args->as.list.n) return refuse(m, "a TorchScript object with arguments");
        return push_new(m, &v, MODE_PICKLE_OBJECT);
    }
    const struct name *name = &names[f->as.integer];
    switch (is_new && name->call != CALL_DICT ? CALL_NEVER : name->call) {
    case CALL_TENSOR: return make_tensor(m, args);
    case CALL_DICT: return make_dict(m, args);
    case CALL_OTHER: return push_new(m, &v, MODE_PICKLE_OTHER);
    case CALL_PARAMETER:
        if (!(v = argument(args, 0, MODE_PICKLE_TENSOR))) return refuse(m, "a parameter that is not a tensor");
        return push_on(m, &m->stack, v);
    case CALL_SAME:
        if (args->as.list.n < 1) return refuse(m, "%s.%s without arguments", name->module, name->name);
        return push_on(m, &m->stack, args->as.list.item[0]);
    case CALL_STORAGE:
    case CALL_NEVER: break;
    }
    return refuse(m, "%s.%s is not called by any checkpoint", name->module, name->name);
}

/* Sets the state of an object: its attributes. Those of dicts (OrderedDict's _metadata) and numpy objects are
 * ignored. */
static enum mode_status op_build(struct machine *m)
{
    struct mode_pickle_value *state, *to;
    enum mode_status st = pop(m, &state);
    if (!st) st = peek(m, &to);
    if (st) return st;
    if (to->kind == MODE_PICKLE_DICT || to->kind == MODE_PICKLE_OTHER) return MODE_OK;
    if (to->kind != MODE_PICKLE_OBJECT || state->kind != MODE_PICKLE_DICT)
        return refuse(m, "a state is set on an object that has none");
    for (size_t i = 0; !st && i < state->as.list.n; i++) st = append(m, to, state->as.list.item[i]);
    return st;
}

/* ---- opcodes --------------------------------------------------------------------------------------------- */

static enum mode_status step(struct machine *m, uint8_t op, bool *stop)
{
    struct mode_pickle_value *v, **item;
    uint64_t x;
    size_t n;
    enum mode_status st;
    switch (op) {
    case 0x80: /* PROTO */
        if ((st = number(m, &x, 1))) return st;
        return x <= 5 ? MODE_OK : refuse(m, "pickle protocol %d, at most 5 is supported", (int)x);
    case 0x95: return number(m, &x, 8); /* FRAME: only a hint for buffering */
    case '.': *stop = true; return MODE_OK;
    case '(': return push_mark(m);
    case '0': return pop(m, &v);
    case '1': return pop_mark(m, &item, &n);
    case '2': return (st = peek(m, &v)) ? st : push_on(m, &m->stack, v);
    case 'N': return push_new(m, &v, MODE_PICKLE_NONE);
    case 0x88: return push_int(m, 1, MODE_PICKLE_BOOL);
    case 0x89: return push_int(m, 0, MODE_PICKLE_BOOL);
    case 'K': return (st = number(m, &x, 1)) ? st : push_int(m, (int64_t)x, MODE_PICKLE_INT);
    case 'M': return (st = number(m, &x, 2)) ? st : push_int(m, (int64_t)x, MODE_PICKLE_INT);
    case 'J': return (st = number(m, &x, 4)) ? st : push_int(m, (int32_t)(uint32_t)x, MODE_PICKLE_INT);
    case 0x8a: return push_long(m);
    case 'G': return push_real(m);
    case 'X': return push_text(m, 4, MODE_PICKLE_TEXT);
    case 0x8c: return push_text(m, 1, MODE_PICKLE_TEXT);
    case 0x8d: return push_text(m, 8, MODE_PICKLE_TEXT);
    case 'T': return push_text(m, 4, MODE_PICKLE_TEXT); /* strings of Python 2 */
    case 'U': return push_text(m, 1, MODE_PICKLE_TEXT);
    case 'B': return push_text(m, 4, MODE_PICKLE_BYTES);
    case 'C': return push_text(m, 1, MODE_PICKLE_BYTES);
    case 0x8e: return push_text(m, 8, MODE_PICKLE_BYTES);
    case ']':
    case 0x8f: return push_new(m, &v, MODE_PICKLE_LIST);
    case ')': return push_new(m, &v, MODE_PICKLE_TUPLE);
    case '}': return push_new(m, &v, MODE_PICKLE_DICT);
    case 'l':
    case 0x91: return push_marked(m, MODE_PICKLE_LIST);
    case 't': return push_marked(m, MODE_PICKLE_TUPLE);
    case 'd': return push_marked(m, MODE_PICKLE_DICT);
    case 0x85: return push_tuple(m, 1);
    case 0x86: return push_tuple(m, 2);
    case 0x87: return push_tuple(m, 3);
    case 'a': return extend_top(m, false);
    case 'e':
    case 0x90: return extend_marked(m, false);
    case 's': return extend_top(m, true);
    case 'u': return extend_marked(m, true);
    case 'q': return (st = number(m, &x, 1)) ? st : memo_put(m, x);
    case 'r': return (st = number(m, &x, 4)) ? st : memo_put(m, x);
    case 0x94: return memo_put(m, m->memo.n);
    case 'h': return (st = number(m, &x, 1)) ? st : memo_get(m, x);
    case 'j': return (st = number(m, &x, 4)) ? st : memo_get(m, x);
    case 'c': return op_global(m);
    case 0x93: return op_stack_global(m);
    case 'R': return op_call(m, false);
    case 0x81: return op_call(m, true);
    case 'b': return op_build(m);
    case 'Q': return op_persistent_id(m);
    default: return refuse(m, "opcode 0x%02x, which no checkpoint uses", op);
    }
}

enum mode_status mode_pickle_read(struct mode_pickle_value **root, struct mode_pickle_value **storages, size_t *at,
                                  struct mode_scratch *scratch, const uint8_t *data, size_t size, const char *what,
                                  struct mode_error *err)
{
    struct machine m = {.scratch = scratch, .data = data, .size = size, .at = *at, .what = what, .err = err};
    bool stop = false;
    enum mode_status st = MODE_OK;
    while (!st && !stop) {
        m.op_at = m.at;
        if (m.at >= size) return refuse(&m, "the pickle does not end. HINT: a truncated download?");
        st = step(&m, data[m.at++], &stop);
    }
    if (!st && m.n_marks) st = refuse(&m, "ends with a mark open");
    if (!st) st = pop(&m, root);
    if (!st && m.stack.n) st = refuse(&m, "ends with %zu values left over", m.stack.n);
    if (st) return st;
    *at = m.at;
    if (storages) *storages = m.storages;
    return st;
}

bool mode_pickle_is_text(const struct mode_pickle_value *v, const char *text)
{
    return v->kind == MODE_PICKLE_TEXT && same(v->as.text.data, v->as.text.size, text);
}

struct mode_pickle_value *mode_pickle_get(const struct mode_pickle_value *dict, const char *key)
{
    if (dict->kind != MODE_PICKLE_DICT) return NULL;
    for (size_t i = dict->as.list.n; i >= 2; i -= 2)
        if (mode_pickle_is_text(dict->as.list.item[i - 2], key)) return dict->as.list.item[i - 1];
    return NULL;
}
