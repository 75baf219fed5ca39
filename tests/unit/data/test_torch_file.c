/* Files of torch.save, composed byte by byte (tests/torch_fixture.h), are read; pickles that call code are refused. The
 * same with files from PyTorch itself: tests/golden/check_weights.py. */
#include "base/rng.h"
#include "data/jail.h"
#include "data/weights.h"
#include "torch_fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/mode-torch-XXXXXX";

static void write_file(const struct mode_str *s)
{
    struct mode_error err = {0};
    assert_int_equal(mode_file_write_atomic(path, s->data, s->len, &err), MODE_OK);
}

static void check_tensors(const char *note)
{
    struct mode_weights w;
    struct mode_error err = {0};
    if (mode_weights_open(&w, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(w.n_tensors, 4);
    assert_string_equal(w.note, note);
    const struct mode_tensor *a = mode_weights_find(&w, "a"), *t = mode_weights_find(&w, "t"),
                             *row = mode_weights_find(&w, "row"), *n = mode_weights_find(&w, "n");
    const float turned[6] = {0, 3, 1, 4, 2, 5};
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(t->dim[0], 3);
    assert_memory_equal(a->data, torch_numbers, sizeof torch_numbers);
    assert_memory_equal(t->data, turned, sizeof turned);
    assert_memory_equal(row->data, torch_numbers + 3, 12);
    assert_int_equal(n->dtype, MODE_DTYPE_I64);
    assert_int_equal(n->n_dims, 0);
    assert_int_equal(*(const char *)n->data, 7);
    assert_true((const char *)row->data == (const char *)a->data + 12); /* no copy where none is needed */
    mode_weights_close(&w);
}

static void test_a_zip_reads(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        struct mode_str pickle = {0}, file = {0};
        put_state_dict(&pickle, "\x80\2", "}b.", 0); /* with a state, as OrderedDict's _metadata */
        put_torch_zip(&file, pickle.data, pickle.len, wide);
        write_file(&file);
        check_tensors("");
        mode_str_clear(&pickle);
        mode_str_clear(&file);
    }
}

static void put_legacy(struct mode_str *s)
{
    mode_str_add(s, "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3.\x80\2}", 24);
    put_text(s, "little_endian");
    mode_str_add_cstr(s, "\x88s.");
    put_state_dict(s, "\x80\2", ".", 1);
    mode_str_add_cstr(s, "\x80\2](");
    put_text(s, "1");
    put_text(s, "0");
    mode_str_add_cstr(s, "e.");
    put_le(s, 1, 8);
    put_le(s, 7, 8);
    put_le(s, 6, 8);
    mode_str_add(s, torch_numbers, sizeof torch_numbers);
}

static void test_the_layout_before_it_reads(void **state)
{
    (void)state;
    struct mode_str file = {0};
    put_legacy(&file);
    write_file(&file);
    check_tensors("");
    mode_str_clear(&file);
}

static void test_a_training_checkpoint_gives_its_state_dict(void **state)
{
    (void)state;
    struct mode_str pickle = {0}, file = {0};
    mode_str_add_cstr(&pickle, "\x80\2}(");
    put_text(&pickle, "epoch");
    put_int(&pickle, 3);
    put_text(&pickle, "state_dict");
    put_state_dict(&pickle, "", "", 0);
    put_text(&pickle, "optimizer");
    mode_str_add_cstr(&pickle, "}"
                               "u.");
    put_torch_zip(&file, pickle.data, pickle.len, 1);
    write_file(&file);
    check_tensors("the state_dict of a training checkpoint; left aside: epoch, optimizer");
    mode_str_clear(&pickle);
    mode_str_clear(&file);
}

/* The pickle, in a valid zip. */
static void refused_bytes(const void *bytes, size_t size, const char *words)
{
    struct mode_weights w;
    struct mode_error err = {0};
    struct mode_str file = {0};
    put_torch_zip(&file, bytes, size, 0);
    write_file(&file);
    enum mode_status st = mode_weights_open(&w, path, &err);
    if (st != MODE_E_FORMAT || !strstr(err.text, words) || !strstr(err.text, path))
        fail_msg("got %s: %s; expected \"%s\"", mode_status_name(st), err.text, words);
    mode_str_clear(&file);
}

static void refused(const char *pickle, const char *words)
{
    refused_bytes(pickle, strlen(pickle), words);
}

static void test_what_wants_to_run_is_refused_by_name(void **state)
{
    (void)state;
    refused("cos\nsystem\n(X\2\1\1\1id\x85R.", "byte 0 of data.pkl: the pickle asks for os.system");
    refused("\x80\4\x8c\5posix\x8c\6system\x93.", "byte 17 of data.pkl: the pickle asks for posix.system");
    refused("cbuiltins\neval\n.", "builtins.eval");
    refused("c__builtin__\ngetattr\n.", "__builtin__.getattr");
    refused("ctorch\nload\n.", "torch.load");
    refused("ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "_rebuild_tensor_v2.__globals__");
    refused("ctorch\nFloatStorage\n)R.", "torch.FloatStorage is not called");
    refused("ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes");
    refused("(ios\nsystem\n.", "opcode 0x69"); /* INST */
    refused("(cos\n.", "ends in the middle of a name");
    refused("\x82\1.", "opcode 0x82");                   /* EXT1 */
    refused("Pid\n.", "opcode 0x50");                    /* PERSID */
    refused("c\x01\x1b[31m\nx\n.", "asks for ??[31m.x"); /* nothing of the file reaches a terminal as it is */
    refused("ccollections\nOrderedDict\n}(K\1K\1tR.", "a call of something that is not a function");
}

static void test_malformed_pickles_are_refused(void **state)
{
    (void)state;
    refused("", "the pickle does not end");
    refused("N", "the pickle does not end");
    refused(".", "the stack is empty");
    refused("NN.", "1 values left over");
    refused("(N.", "mark open");
    refused("t.", "there is no mark");
    refused("(0.", "the stack is empty"); /* nothing below a mark can be popped */
    refused("h\7.", "memo 7 was never set");
    refused("Nr\xff\xff\xff\x7f.", "memo 2147483647 after 0");
    refused("X\xff\xff\xff\xff.", "ends in the middle of an argument");
    refused("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "ends in the middle of an argument");
    refused("\x80\7.", "protocol 7");
    refused("NNs.", "the stack is empty");
    refused("NNNs.", "not a dict");
    refused("}(Nu.", "a key without a value");
    refused("N}b.", "a state is set");
    refused("NQ.", "a persistent id that is not a tuple");
    refused("(NNNNNtQ.", "does not name a storage");
    refused("K\1.", "no dict of tensors");
    refused("}.", "without tensors");
    struct mode_str deep = {0}; /* an empty list in a list in a list ...: no recursion anywhere */
    for (int i = 0; i < 100000; i++) mode_str_add_char(&deep, ']');
    for (int i = 1; i < 100000; i++) mode_str_add_char(&deep, 'a');
    mode_str_add_char(&deep, '.');
    refused_bytes(deep.data, deep.len, "no dict of tensors");
    mode_str_clear(&deep);
    /* a dict that contains itself */
    refused_bytes("}q\0X\1\0\0\0xh\0s.", 13, "without tensors");
    refused_bytes("}q\0X\12\0\0\0state_dicth\0s.", 22, "without tensors");
}

static void refused_tensor(const char *class, int32_t count, int32_t offset, int n, const int64_t *dim,
                           const int64_t *stride, const char *words)
{
    struct mode_str pickle = {0};
    mode_str_add_cstr(&pickle, "}");
    put_text(&pickle, "a");
    put_tensor(&pickle, class, "0", count, offset, n, dim, stride, 0);
    mode_str_add_cstr(&pickle, "s.");
    refused_bytes(pickle.data, pickle.len, words);
    mode_str_clear(&pickle);
}

static void test_views_outside_their_storage_are_refused(void **state)
{
    (void)state;
    refused_tensor("FloatStorage", 6, 1, 2, (int64_t[]){2, 3}, (int64_t[]){3, 1}, "element 6 of a storage of 6");
    refused_tensor("FloatStorage", 6, 0, 1, (int64_t[]){2}, (int64_t[]){6}, "element 6 of a storage of 6");
    refused_tensor("FloatStorage", 6, -1, 1, (int64_t[]){2}, (int64_t[]){1}, "must be made of");
    refused_tensor("FloatStorage", 6, 0, 1, (int64_t[]){-2}, (int64_t[]){1}, "not a count");
    refused_tensor("FloatStorage", 6, 0, 1, (int64_t[]){2}, (int64_t[]){-1}, "not a count");
    refused_tensor("FloatStorage", 6, 0, 1, (int64_t[]){7}, (int64_t[]){0}, "repeats a storage");
    refused_tensor("FloatStorage", 6, 0, 4, (int64_t[]){2147483647, 2147483647, 2147483647, 2}, (int64_t[]){0, 0, 0, 0},
                   "overflows");
    refused_tensor("FloatStorage", 6, 0, 9, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1},
                   (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, "9 dimensions");
    refused_tensor("FloatStorage", 7, 0, 1, (int64_t[]){7}, (int64_t[]){1}, "too few for its 7 elements");
    refused_tensor("DoubleStorage", 6, 0, 1, (int64_t[]){6}, (int64_t[]){1}, "too few for its 6 elements");
    refused_tensor("ComplexFloatStorage", 6, 0, 1, (int64_t[]){6}, (int64_t[]){1}, "torch.ComplexFloatStorage");
}

static void refused_zip(const struct torch_member *m, int n, const char *words)
{
    struct mode_weights w;
    struct mode_error err = {0};
    struct mode_str file = {0};
    put_zip(&file, m, n, 0);
    write_file(&file);
    enum mode_status st = mode_weights_open(&w, path, &err);
    if (st != MODE_E_FORMAT || !strstr(err.text, words))
        fail_msg("got %s: %s; expected \"%s\"", mode_status_name(st), err.text, words);
    mode_str_clear(&file);
}

static void test_malformed_zips_are_refused(void **state)
{
    (void)state;
    struct mode_str p = {0};
    put_state_dict(&p, "\x80\2", ".", 0);
    const struct torch_member pickle = {"x/data.pkl", p.data, p.len}, big = {"x/byteorder", "bigxxx", 6},
                              zero = {"x/data/0", torch_numbers, 24}, code = {"x/code/a.py", "pass", 4};
    refused_zip((struct torch_member[]){code}, 1, "no data.pkl");
    refused_zip((struct torch_member[]){pickle, big}, 2, "big-endian");
    refused_zip((struct torch_member[]){pickle, zero}, 2, "no x/data/1");
    refused_zip((struct torch_member[]){pickle, pickle}, 2, "the same name");
    refused_zip((struct torch_member[]){pickle, {"y/data.pkl", p.data, p.len}}, 2, "two data.pkl");
    /* a compressed entry, and one whose header is elsewhere */
    struct mode_str file = {0};
    struct mode_weights w;
    struct mode_error err = {0};
    put_torch_zip(&file, p.data, p.len, 0);
    char *directory = memmem(file.data, file.len, "PK\1\2", 4);
    directory[10] = 8;
    write_file(&file);
    assert_int_equal(mode_weights_open(&w, path, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "compressed"));
    directory[10] = 0;
    directory[42]++;
    write_file(&file);
    assert_int_equal(mode_weights_open(&w, path, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "not where its directory says"));
    mode_str_clear(&file);
    mode_str_clear(&p);
}

/* Truncated anywhere and with any byte changed, both formats give an error sentence or tensors within the file; in this
 * process, so that the sanitizers see it. */
static void test_damaged_files_never_crash(void **state)
{
    (void)state;
    enum { SCRATCH = 1 << 20, MUTATIONS = 4000 };
    struct mode_str pickle = {0}, file[2] = {{0}, {0}};
    struct mode_error err = {0};
    struct mode_torch_plan *plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct mode_scratch s = {malloc(SCRATCH), SCRATCH, 0};
    struct mode_rng rng = mode_rng_for(3, MODE_RNG_INIT, 0, 0);
    size_t n_read = 0;
    put_state_dict(&pickle, "\x80\2", ".", 0);
    put_torch_zip(&file[0], pickle.data, pickle.len, 1);
    put_legacy(&file[1]);
    for (int k = 0; k < 2; k++) {
        for (size_t n = 0; n < file[k].len; n++) {
            uint8_t *cut = malloc(n + 1); /* its own allocation: ASan catches a read past the end */
            memcpy(cut, file[k].data, n);
            s.used = 0;
            mode_torch_plan_make(plan, &s, cut, n);
            assert_int_not_equal(plan->status, MODE_OK);
            free(cut);
        }
        for (int i = 0; i < MUTATIONS; i++) {
            uint8_t *copy = malloc(file[k].len);
            memcpy(copy, file[k].data, file[k].len);
            for (int j = 0; j < 1 + i % 3; j++) copy[mode_rng_u64(&rng) % file[k].len] = (uint8_t)mode_rng_u64(&rng);
            s.used = 0;
            mode_torch_plan_make(plan, &s, copy, file[k].len);
            if (!plan->status) {
                assert_int_equal(mode_torch_plan_check(plan, file[k].len, &err), MODE_OK);
                n_read++;
            }
            free(copy);
        }
    }
    assert_true(n_read > 0 && n_read < 2 * MUTATIONS);
    munmap(plan, sizeof *plan);
    free(s.base);
    mode_str_clear(&pickle);
    mode_str_clear(&file[0]);
    mode_str_clear(&file[1]);
}

static void test_a_lying_plan_is_not_believed(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_torch_plan *plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct mode_torch_entry good = {
        .dtype = MODE_DTYPE_F32, .n_dims = 1, .dim = {4}, .stride = {1}, .begin = 8, .end = 24};
    plan->n_entries = 1;
    plan->n_names = 2;
    memcpy(plan->names, "a", 2);
    plan->entry[0] = good;
    assert_int_equal(mode_torch_plan_check(plan, 24, &err), MODE_OK);
    assert_int_equal(mode_torch_plan_check(plan, 23, &err), MODE_E_FORMAT);
#define LIE(change)                                                                                                    \
    plan->entry[0] = good;                                                                                             \
    plan->entry[0].change;                                                                                             \
    assert_int_equal(mode_torch_plan_check(plan, 24, &err), MODE_E_FORMAT)
    LIE(dtype = 99);
    LIE(name = 2);
    LIE(n_dims = 9);
    LIE(n_dims = -1);
    LIE(begin = 25);
    LIE(offset = 1);
    LIE(offset = INT64_MAX);
    LIE(dim[0] = 5);
    LIE(dim[0] = INT64_MAX);
    LIE(stride[0] = 2);
    LIE(stride[0] = INT64_MAX);
    LIE(dim[0] = -1);
    plan->entry[0] = good;
    plan->names[1] = 'x';
    assert_int_equal(mode_torch_plan_check(plan, 24, &err), MODE_E_FORMAT);
    plan->names[1] = 0;
    plan->n_entries = MODE_TORCH_MAX_TENSORS + 1;
    assert_int_equal(mode_torch_plan_check(plan, 24, &err), MODE_E_FORMAT);
    munmap(plan, sizeof *plan);
}

static void open_a_file(void *ctx, void *out, void *scratch, size_t size)
{
    (void)scratch;
    (void)size;
    *(int *)out = 1;
    if (open(ctx, O_CREAT | O_WRONLY, 0600) >= 0) *(int *)out = 2;
}

static void crash(void *ctx, void *out, void *scratch, size_t size)
{
    (void)ctx;
    (void)out;
    (void)size;
    munmap(scratch, 4096); /* not allowed either */
}

static void add(void *ctx, void *out, void *scratch, size_t size)
{
    ((int *)scratch)[size / 4 - 1] = 2;
    *(int *)out = *(int *)ctx + ((int *)scratch)[size / 4 - 1];
}

static void test_the_jail_only_computes(void **state)
{
    (void)state;
    struct mode_jail jail;
    struct mode_error err = {0};
    int forty = 40;
    char *file = mode_xasprintf("%s.opened", path);
    assert_int_equal(mode_jail_run(&jail, 4096, 1 << 20, add, &forty, "sum", &err), MODE_OK);
    assert_int_equal(*(int *)jail.out, 42);
    mode_jail_clear(&jail);
#ifndef __SANITIZE_THREAD__
    assert_int_equal(mode_jail_run(&jail, 4096, 4096, open_a_file, file, "opener", &err), MODE_E_FORMAT);
    assert_int_equal(*(int *)jail.out, 1);
    assert_non_null(strstr(err.text, "opener: the process that reads it was stopped by signal 31 (Bad system call)"));
    mode_jail_clear(&jail);
    assert_false(mode_file_exists(file));
    assert_int_equal(mode_jail_run(&jail, 4096, 4096, crash, NULL, "crasher", &err), MODE_E_FORMAT);
    mode_jail_clear(&jail);
#else
    (void)open_a_file;
    (void)crash;
#endif
    free(file);
}

static void test_parts_are_joined(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_weights w;
    char dir[] = "/tmp/mode-parts-XXXXXX";
    assert_non_null(mkdtemp(dir));
    const char *names[] = {"x.index.json", "one", "two"};
    char *file[3];
    for (int i = 0; i < 3; i++) file[i] = mode_path_join(dir, names[i]);
    float x[2] = {1, 2};
    struct mode_tensor a = mode_tensor_1d(x, MODE_DTYPE_F32, 1), b = mode_tensor_1d(x + 1, MODE_DTYPE_F32, 1);
    a.name = "a";
    b.name = "b";
    assert_int_equal(mode_safetensors_write(file[1], &a, 1, NULL, 0, &err), MODE_OK);
    assert_int_equal(mode_safetensors_write(file[2], &b, 1, NULL, 0, &err), MODE_OK);
    const struct {
        const char *index, *words; /* words NULL: reads */
    } cases[] = {{"{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", NULL},
                 {"{\"weight_map\":{\"a\":\"one\"}}", NULL},
                 {"{\"weight_map\":{\"a\":\"one\",\"c\":\"two\"}}", "hold b, which it does not name"},
                 {"{\"weight_map\":{\"a\":\"one\",\"c\":\"one\"}}", "names 2 tensors, its parts hold 1"},
                 {"{\"weight_map\":{\"a\":\"../one\"}}", "must be a name in the same folder"},
                 {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "must be a name in the same folder"},
                 {"{\"weight_map\":{\"a\":3}}", "must be a name in the same folder"},
                 {"{\"weight_map\":3}", "\"weight_map\" is missing"},
                 {"{", "not an index"},
                 {"{\"weight_map\":{\"a\":\"three\"}}", "three"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mode_file_write_atomic(file[0], cases[i].index, strlen(cases[i].index), &err), MODE_OK);
        enum mode_status st = mode_weights_open(&w, file[0], &err);
        if (!cases[i].words) {
            if (st) fail_msg("%s", err.text);
            assert_int_equal(w.n_tensors, 2 - i);
            assert_true(*(const float *)mode_weights_find(&w, "a")->data == 1.0f);
            mode_weights_close(&w);
        } else if (!st || !strstr(err.text, cases[i].words)) {
            fail_msg("%s: got %s: %s", cases[i].index, mode_status_name(st), err.text);
        }
    }
    for (int i = 0; i < 3; i++) free(file[i]);
    mode_dir_remove(dir, NULL);
}

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_zip_reads),
        cmocka_unit_test(test_the_layout_before_it_reads),
        cmocka_unit_test(test_a_training_checkpoint_gives_its_state_dict),
        cmocka_unit_test(test_what_wants_to_run_is_refused_by_name),
        cmocka_unit_test(test_malformed_pickles_are_refused),
        cmocka_unit_test(test_views_outside_their_storage_are_refused),
        cmocka_unit_test(test_malformed_zips_are_refused),
        cmocka_unit_test(test_damaged_files_never_crash),
        cmocka_unit_test(test_a_lying_plan_is_not_believed),
        cmocka_unit_test(test_the_jail_only_computes),
        cmocka_unit_test(test_parts_are_joined),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
