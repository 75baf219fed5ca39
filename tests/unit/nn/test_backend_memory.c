/* The memory guarantees of nn/backend.h and nn/mirror.h: copies are ordered after earlier ops, mirrored memory is
 * copied to and from the device in op order and again at every replay of a captured sequence, and sizes are exact to
 * the byte. With MODE_TEST_BACKEND on that backend, else on "ref" and "cpu". */
#include "base/str.h"
#include "data/safetensors.h"
#include "nn/mirror.h"
#include "nn/ops.h"
#include "nn/staging.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct mode_error err;

static void on_backends(void (*test)(struct mode_backend *be))
{
    const char *one = getenv("MODE_TEST_BACKEND"), *const names[] = {one ? one : "ref", one ? NULL : "cpu"};
    for (int i = 0; i < 2 && names[i]; i++) {
        struct mode_backend *be;
        assert_int_equal(mode_backend_open(&be, names[i], &err), MODE_OK);
        test(be);
        mode_backend_close(&be);
    }
}

static void *take(struct mode_backend *be, size_t bytes)
{
    void *data;
    assert_int_equal(mode_backend_alloc(be, &data, bytes, &err), MODE_OK);
    return data;
}

static void *take_shared(struct mode_backend *be, size_t bytes)
{
    void *data;
    assert_int_equal(mode_backend_share(be, &data, bytes, &err), MODE_OK);
    return data;
}

static void copies(struct mode_backend *be)
{
    const float in[4] = {3, -4, 5, -6};
    float out[4] = {1, 1, 1, 1}, *a = take(be, sizeof in), *b = take(be, sizeof in);
    struct mode_tensor t = mode_tensor_1d(b, MODE_DTYPE_F32, 4);
    mode_backend_copy(be, out, a, sizeof out);
    for (int i = 0; i < 4; i++) assert_true(out[i] == 0); /* zero-initialised */
    mode_backend_copy(be, a, in, sizeof in);
    mode_backend_copy(be, b, a, sizeof in); /* within the backend's */
    mode_clamp(be, &t, -4.5f, 4.5f);
    mode_backend_copy(be, out, b, sizeof out); /* after the op */
    assert_memory_equal(out, ((const float[]){3, -4, 4.5f, -4.5f}), sizeof out);
    mode_backend_copy(be, out, a + 1, 2 * sizeof *a);
    assert_memory_equal(out, in + 1, 2 * sizeof *in);
    mode_backend_copy(be, out, NULL, 0);
    mode_backend_free(be, a);
    mode_backend_free(be, b);
    mode_backend_free(be, NULL);
}

static void test_copies_go_either_way_and_after_ops(void **state)
{
    (void)state;
    on_backends(copies);
}

/* A copy is complete when it returns, also of pinned memory that a device accesses asynchronously. */
static void pinned(struct mode_backend *be)
{
    enum { PAGE = 4096 };
    float *page = aligned_alloc(PAGE, PAGE), *a = take(be, PAGE);
    assert_non_null(page);
    mode_backend_pin(be, page, PAGE);
    for (int i = 0; i < PAGE / 4; i++) page[i] = (float)i;
    mode_backend_copy(be, a, page, PAGE);
    memset(page, 0, PAGE);
    mode_backend_copy(be, page, a, PAGE);
    for (int i = 0; i < PAGE / 4; i++) assert_true(page[i] == (float)i);
    mode_backend_unpin(be, page);
    mode_backend_free(be, a);
    free(page);
}

static void test_copies_of_pinned_memory(void **state)
{
    (void)state;
    on_backends(pinned);
}

/* What was sent is intact although the host's memory is overwritten, whether ops have read it or not. */
static void staged(struct mode_backend *be)
{
    const float in[4] = {3, -4, 5, -6};
    float out[4];
    struct mode_staging *s;
    if (!mode_backend_is_device(be)) return; /* host and device memory are the same */
    assert_int_equal(mode_staging_open(&s, be, sizeof in, &err), MODE_OK);
    mode_staging_wait(s);
    memcpy(s->host, in, sizeof in);
    mode_staging_send(s, sizeof in);
    mode_staging_wait(s);
    memset(s->host, 0, sizeof in);
    mode_staging_begin(s);
    mode_backend_copy(be, out, s->device, sizeof out);
    mode_staging_end(s);
    assert_memory_equal(out, in, sizeof in);
    mode_staging_close(&s);
}

static void test_what_was_sent_stays_as_it_was(void **state)
{
    (void)state;
    on_backends(staged);
}

struct lists {
    struct mode_backend *be;
    int32_t *rows;
    struct mode_tensor x, y, list;
    struct mode_param p;
    double *sum;
};

static void rows_and_squares(void *ctx)
{
    struct lists *l = ctx;
    mode_backend_written(l->be, l->rows, 2 * sizeof *l->rows);
    mode_gather(l->be, &l->y, &l->x, &l->list);
    mode_grad_squares(l->be, l->sum, &l->p, 1);
    mode_backend_show(l->be, l->sum, sizeof *l->sum);
}

static void shared(struct mode_backend *be)
{
    float x[6] = {1, 2, 10, 20, 100, 200}, y[4];
    struct lists l = {.be = be, .rows = take_shared(be, 2 * sizeof *l.rows), .sum = take_shared(be, sizeof *l.sum)};
    const struct mode_sequence key = {.owner = &l};
    l.x = mode_tensor_2d(take(be, sizeof x), MODE_DTYPE_F32, 3, 2);
    l.y = mode_tensor_2d(take(be, sizeof y), MODE_DTYPE_F32, 2, 2);
    l.list = mode_tensor_1d(l.rows, MODE_DTYPE_I32, 2);
    l.p.grad = mode_tensor_1d(l.y.data, MODE_DTYPE_F32, 4);
    assert_true(l.rows[0] == 0 && l.rows[1] == 0 && *l.sum == 0);
    mode_backend_copy(be, l.x.data, x, sizeof x);
    for (int i = 0; i < 5; i++) { /* op by op, captured, replayed: each time with the current rows */
        const int a = (i + 1) % 3, b = i % 2;
        l.rows[0] = a;
        l.rows[1] = b;
        mode_backend_repeat(be, &key, rows_and_squares, &l);
        mode_backend_sync(be);
        const double want = (double)(x[2 * a] * x[2 * a] + x[2 * a + 1] * x[2 * a + 1]) +
                            (double)(x[2 * b] * x[2 * b] + x[2 * b + 1] * x[2 * b + 1]);
        assert_true(*l.sum == want);
        mode_backend_copy(be, y, l.y.data, sizeof y);
        assert_memory_equal(y, x + 2 * a, 2 * sizeof *x);
        assert_memory_equal(y + 2, x + 2 * b, 2 * sizeof *x);
    }
    struct mode_backend_repeats r;
    mode_backend_repeats(be, &r);
    assert_int_equal(r.replayed, mode_backend_is_device(be) ? 4 : 0);
    mode_backend_free(be, l.rows);
    mode_backend_free(be, l.sum);
    mode_backend_free(be, l.x.data);
    mode_backend_free(be, l.y.data);
}

static void test_shared_memory_is_sent_and_shown_by_every_repeat(void **state)
{
    (void)state;
    on_backends(shared);
}

static void room(struct mode_backend *be)
{
    size_t begun, left, total;
    void *memory[4] = {0};
    mode_backend_room(be, &begun, &total);
    memory[0] = take(be, 1000);
    memory[1] = take_shared(be, 3000);
    memory[2] = take(be, 0);
    memory[3] = take_shared(be, 0);
    mode_backend_room(be, &left, &total);
    assert_int_equal(begun - left, mode_backend_is_device(be) ? 4000 : 0);
    for (int i = 0; i < 4; i++) mode_backend_free(be, memory[i]);
    mode_backend_room(be, &left, &total);
    assert_int_equal(left, begun);
    if (!mode_backend_is_device(be)) return;
    for (int share = 0; share < 2; share++) {
        enum mode_status st = share ? mode_backend_share(be, &memory[0], total, &err)
                                    : mode_backend_alloc(be, &memory[0], total, &err);
        assert_int_equal(st, MODE_E_MEMORY);
        assert_null(memory[0]);
        assert_non_null(strstr(err.text, "no GPU memory for"));
    }
    mode_backend_room(be, &left, &total);
    assert_int_equal(left, begun);
}

static void test_room_counts_both_kinds_to_the_byte(void **state)
{
    (void)state;
    on_backends(room);
}

static void mirrors(struct mode_backend *be)
{
    struct mode_mirror m = {.be = be};
    float *a = take(be, 4 * sizeof *a), *b = take(be, 8 * sizeof *b);
    for (int n = 4; n <= 8; n += 4) { /* the second is larger */
        float *to = mode_mirror_write(&m, n == 4 ? a : b, (size_t)n * sizeof *to);
        for (int i = 0; i < n; i++) to[i] = (float)(10 * n + i);
        mode_mirror_send(&m);
    }
    for (int n = 8; n >= 4; n -= 4) {
        const float *from = mode_mirror_read(&m, n == 4 ? a : b, (size_t)n * sizeof *from);
        for (int i = 0; i < n; i++) assert_true(from[i] == (float)(10 * n + i));
    }
    char *path = mode_xasprintf("/tmp/mode-memory-%ld.safetensors", (long)getpid());
    struct mode_tensor t[2] = {mode_tensor_1d(a, MODE_DTYPE_F32, 4), mode_tensor_1d(b, MODE_DTYPE_F32, 8)};
    struct mode_safetensors f;
    t[0].name = "a";
    t[1].name = "b";
    assert_int_equal(mode_safetensors_write_from(path, t, 2, NULL, 0, mode_mirror_fetch, &m, &err), MODE_OK);
    assert_int_equal(mode_safetensors_open(&f, path, &err), MODE_OK);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4 * (k + 1); i++)
            assert_true(mode_f32(mode_safetensors_find(&f, t[k].name))[i] == (float)(40 * (k + 1) + i));
    mode_safetensors_close(&f);
    assert_int_equal(unlink(path), 0);
    free(path);
    mode_mirror_clear(&m);
    mode_backend_free(be, a);
    mode_backend_free(be, b);
}

static void test_mirrors_are_read_written_and_saved(void **state)
{
    (void)state;
    on_backends(mirrors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies_go_either_way_and_after_ops),
        cmocka_unit_test(test_copies_of_pinned_memory),
        cmocka_unit_test(test_what_was_sent_stays_as_it_was),
        cmocka_unit_test(test_shared_memory_is_sent_and_shown_by_every_repeat),
        cmocka_unit_test(test_room_counts_both_kinds_to_the_byte),
        cmocka_unit_test(test_mirrors_are_read_written_and_saved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
