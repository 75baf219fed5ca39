/* The hash table of names: finds exactly the names that were added, for any number of them. */
#include "base/index.h"

#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_finds_what_was_put(void **state)
{
    (void)state;
    enum { N = 5000 };
    static char name[N][16];
    struct mode_index x = {0};
    assert_int_equal(mode_index_get(&x, "a"), MODE_INDEX_NONE); /* an empty one */
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "shard/%04u", i);
        mode_index_put(&x, name[i], i);
        assert_int_equal(mode_index_get(&x, name[i / 2]), i / 2); /* also while it grows */
    }
    assert_int_equal(x.n, N);
    for (uint32_t i = 0; i < N; i++) {
        char *other = mode_xstrdup(name[i]);
        assert_int_equal(mode_index_get(&x, other), i);
        other[0] = 'S';
        assert_int_equal(mode_index_get(&x, other), MODE_INDEX_NONE);
        free(other);
    }
    mode_index_put(&x, name[7], 12); /* again: the later number */
    assert_int_equal(mode_index_get(&x, name[7]), 12);
    assert_int_equal(x.n, N);
    mode_index_clear(&x);
    assert_int_equal(mode_index_get(&x, name[7]), MODE_INDEX_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_finds_what_was_put)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
