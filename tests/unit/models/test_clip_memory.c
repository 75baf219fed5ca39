/* Training allocates all memory before the first step: every allocation of the process is counted, and steps with other
 * texts and batch sizes than the first make none. Nor does inference between steps, whose features are those of a model
 * opened for inference. */
#include "base/rng.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/adamw.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static long allocations; /* calls since it was reset */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *p, size_t n)
{
    (void)p;
    (void)n;
    allocations++;
}

static void on_free(const volatile void *p)
{
    (void)p;
}

static void count_allocations(void)
{
    assert_true(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
}
#else
/* the names under which glibc exports its own */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    allocations++;
    return __libc_memalign(alignment, n);
}

int posix_memalign(void **p, size_t alignment, size_t n)
{
    allocations++;
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    allocations++;
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

static void count_allocations(void)
{
    free(malloc(1));
    assert_true(allocations > 0); /* the interposed functions are the ones called */
}
#endif

enum { BATCH = 9, SIZE = 32, CONTEXT = 40 };
static const char MODEL[] = "{\"embed_dim\": 24, \"vision_cfg\": {\"image_size\": 32, \"patch_size\": 8, \"width\": 48,"
                            " \"layers\": 3, \"head_width\": 16}, \"text_cfg\": {\"context_length\": 40,"
                            " \"vocab_size\": 300, \"width\": 32, \"heads\": 2, \"layers\": 2}}";

struct data {
    float pixels[BATCH * 3 * SIZE * SIZE];
    int32_t ids[BATCH * CONTEXT], n_ids[BATCH];
};

/* Texts of at most `longest` tokens, one of them of that length. */
static void draw(struct data *d, uint64_t seed, int longest)
{
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_TEST, 0, 0);
    int32_t *id = d->ids;
    for (size_t i = 0; i < sizeof d->pixels / sizeof *d->pixels; i++) d->pixels[i] = (float)mode_rng_normal(&r);
    for (int i = 0; i < BATCH; i++) {
        d->n_ids[i] = i == 2 ? longest : 2 + (int32_t)mode_rng_below(&r, (uint64_t)longest - 1);
        for (int j = 0; j < d->n_ids[i]; j++) *id++ = j == d->n_ids[i] - 1 ? 299 : (int32_t)mode_rng_below(&r, 299);
    }
}

static void no_allocation_after_the_first_step(int64_t accumulate, const struct mode_clip_blocks *blocks)
{
    static struct data d;
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_error err;
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now;
    size_t n;
    opt.clip_norm = 1;
    assert_int_equal(mode_backend_open(&be, "cpu", &err), MODE_OK);
    assert_int_equal(mode_clip_create(&clip, be, MODEL, NULL, 1, &err), MODE_OK);
    mode_clip_set_memory(clip, accumulate, false);
    if (blocks) mode_clip_set_blocks(clip, blocks);
    assert_int_equal(mode_clip_train_begin(clip, BATCH, &err), MODE_OK);
    assert_int_equal(mode_adamw_begin(&now, be, &err), MODE_OK);
    struct mode_param *params = mode_clip_params(clip, &n);
    for (int step = 0; step < 5; step++) {
        double loss;
        draw(&d, (uint64_t)step, step == 0 ? 3 : CONTEXT); /* the first is the smallest: later ones need more */
        allocations = 0;
        assert_int_equal(
            mode_clip_train_step(clip, &loss, d.pixels, d.ids, d.n_ids, step == 0 ? 2 : BATCH - step % 2, &err),
            MODE_OK);
        mode_adamw_tell(now, &opt, step + 1);
        mode_adamw_update(be, params, n, now);
        mode_clip_clamp(clip);
        if (step > 0) assert_int_equal(allocations, 0);
    }
    mode_backend_free(be, now);
    mode_clip_close(&clip);
    mode_backend_close(&be);
}

static void test_no_allocation_in_a_step(void **state)
{
    (void)state;
    count_allocations();
    no_allocation_after_the_first_step(1, NULL);
}

static void test_no_allocation_in_pieces_and_under_every_policy(void **state)
{
    static const struct mode_clip_blocks mixed = {{1, 1, 1}, {0, 1, 1}}, again = {{0, 0, 3}, {0, 0, 2}};
    (void)state;
    no_allocation_after_the_first_step(3, &mixed);
    no_allocation_after_the_first_step(1, &again);
}

static struct mode_adamw_step *begin(struct mode_clip **clip, struct mode_backend *be, int64_t accumulate,
                                     const struct mode_clip_blocks *blocks)
{
    struct mode_adamw_step *now;
    struct mode_error err;
    assert_int_equal(mode_clip_create(clip, be, MODEL, NULL, 1, &err), MODE_OK);
    mode_clip_set_memory(*clip, accumulate, false);
    if (blocks) mode_clip_set_blocks(*clip, blocks);
    assert_int_equal(mode_clip_train_begin(*clip, BATCH, &err), MODE_OK);
    assert_int_equal(mode_adamw_begin(&now, be, &err), MODE_OK);
    return now;
}

static void train(struct mode_clip *clip, struct mode_adamw_step *now, int step, struct data *d)
{
    const struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_error err;
    double loss;
    size_t n;
    struct mode_param *params = mode_clip_params(clip, &n);
    draw(d, (uint64_t)step, CONTEXT);
    assert_int_equal(mode_clip_train_step(clip, &loss, d->pixels, d->ids, d->n_ids, BATCH, &err), MODE_OK);
    mode_adamw_tell(now, &opt, step + 1);
    mode_adamw_update(mode_clip_backend(clip), params, n, now);
    mode_clip_clamp(clip);
}

static void copy_weights(struct mode_clip *to, struct mode_clip *from)
{
    size_t n;
    struct mode_param *a = mode_clip_params(to, &n);
    const struct mode_param *b = mode_clip_params(from, &n);
    for (size_t i = 0; i < n; i++) memcpy(a[i].value.data, b[i].value.data, mode_tensor_bytes(&b[i].value));
    mode_clip_refresh(to);
}

enum { EMBED = 24 };
struct features {
    float image[BATCH * EMBED], text[BATCH * EMBED];
};

static void encode(struct features *f, struct mode_clip *clip, const struct data *d)
{
    struct mode_error err;
    assert_int_equal(mode_clip_encode_images(clip, f->image, d->pixels, BATCH, 0, &err), MODE_OK);
    assert_int_equal(mode_clip_encode_texts(clip, f->text, d->ids, d->n_ids, BATCH, 0, &err), MODE_OK);
}

static void inference_between_steps(int64_t accumulate, const struct mode_clip_blocks *blocks)
{
    static struct data d;
    static struct features between, apart;
    struct mode_backend *be;
    struct mode_clip *clip, *plain, *other;
    struct mode_error err;
    size_t n;
    assert_int_equal(mode_backend_open(&be, "cpu", &err), MODE_OK);
    struct mode_adamw_step *now = begin(&clip, be, accumulate, blocks), *then = begin(&plain, be, accumulate, blocks);
    assert_int_equal(mode_clip_create(&other, be, MODEL, NULL, 2, &err), MODE_OK);
    assert_int_equal(mode_clip_train_infer(clip, &err), MODE_OK);
    for (int step = 0; step < 3; step++) {
        train(plain, then, step, &d);
        train(clip, now, step, &d);
        allocations = 0;
        encode(&between, clip, &d);
        assert_int_equal(allocations, 0);
        copy_weights(other, clip);
        encode(&apart, other, &d);
        assert_memory_equal(&between, &apart, sizeof apart);
    }
    const struct mode_param *a = mode_clip_params(plain, &n), *b = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(a[i].value.data, b[i].value.data, mode_tensor_bytes(&a[i].value));
    mode_backend_free(be, now);
    mode_backend_free(be, then);
    mode_clip_close(&clip);
    mode_clip_close(&plain);
    mode_clip_close(&other);
    mode_backend_close(&be);
}

static void test_inference_between_steps(void **state)
{
    static const struct mode_clip_blocks again = {{0, 0, 3}, {0, 0, 2}};
    (void)state;
    inference_between_steps(1, NULL);
    inference_between_steps(5, &again); /* less memory than encoding a batch at once needs: in smaller batches */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_allocation_in_a_step),
        cmocka_unit_test(test_no_allocation_in_pieces_and_under_every_policy),
        cmocka_unit_test(test_inference_between_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
