#include "remote/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void means(const char *text, const char *address, const char *query)
{
    char *a, *q;
    struct mode_error err;
    if (mode_remote_address(&a, &q, text, &err)) fail_msg("%s: %s", text, err.text);
    assert_string_equal(a, address);
    if (query)
        assert_string_equal(q, query);
    else
        assert_null(q);
    free(a);
    free(q);
}

static void refused(const char *text, const char *part)
{
    char *a, *q;
    struct mode_error err;
    assert_int_equal(mode_remote_address(&a, &q, text, &err), MODE_E_CONFIG);
    if (!strstr(err.text, part)) fail_msg("\"%s\" lacks \"%s\"", err.text, part);
    if (strstr(err.text, "SECRET")) fail_msg("a secret is shown: %s", err.text);
    assert_null(a);
}

static void test_addresses(void **state)
{
    (void)state;
    assert_true(mode_remote_is("http://h/x") && mode_remote_is("HTTPS://h/x") && mode_remote_is("s3://b/k"));
    assert_false(mode_remote_is("/http://h") || mode_remote_is("hf://x") || mode_remote_is("https:/x"));
    means("https://h:81/a/b.tar", "https://h:81/a/b.tar", NULL);
    means("http://H/a.tar?X=1&Y=%2F", "http://H/a.tar", "X=1&Y=%2F");
    means("http://h/a.tar?", "http://h/a.tar", NULL);
    means("s3://bucket/a b#1?.tar", "s3://bucket/a b#1?.tar", NULL);
    refused("https://h", "names no shard");
    refused("https://h/", "names no shard");
    refused("https:///a", "names no shard");
    refused("https://h/shards/?SECRET", "names no shard");
    refused("s3://bucket/", "not listed");
    refused("https://me:SECRET@h/a.tar", "user name or a password");
    refused("https://SECRET@h/a.tar?x=SECRET", "https://h/a.tar: contains a user");
    refused("https://h/*.tar?SECRET", "is a pattern");
    refused("s3://b1.x/[0-9].tar", "is a pattern");
    refused("https://h/a b.tar", "0x20");
    refused("https://h/a.tar#x", "%23");
    refused("https://h/a.tar\nX: y", "0x0a");
    refused("s3://a/b.tar", "the name of a bucket");
    refused("s3://a/b\n.tar", "0x0a");
}

static void goes_round(const char *address, const struct mode_remote_version *v, const char *pinned)
{
    struct mode_remote_version back;
    struct mode_error err;
    char *a, *p = mode_remote_pin(address, v);
    assert_string_equal(p, pinned);
    if (mode_remote_unpin(&a, &back, p, &err)) fail_msg("%s", err.text);
    assert_string_equal(a, address);
    assert_true(back.bytes == v->bytes && back.mark == v->mark && mode_remote_bytes(p) == v->bytes);
    assert_string_equal(back.text, v->text);
    assert_int_equal(mode_remote_pin_at(p), strlen(address));
    free(a);
    free(p);
}

static void test_pins(void **state)
{
    (void)state;
    struct mode_error err;
    struct mode_remote_version v;
    char *a;
    goes_round("https://h/a.tar", &(struct mode_remote_version){7, MODE_REMOTE_ETAG, "5d4-2"},
               "https://h/a.tar#bytes=7,etag=5d4-2");
    goes_round("s3://bucket/a#1.tar", &(struct mode_remote_version){0, MODE_REMOTE_WEAK, "a/b \"#,%"},
               "s3://bucket/a#1.tar#bytes=0,weak=a%2Fb%20%22%23%2C%25");
    goes_round("http://h/a", &(struct mode_remote_version){1, MODE_REMOTE_TIME, "99"}, "http://h/a#bytes=1,time=99");
    goes_round("http://h/a", &(struct mode_remote_version){UINT64_MAX, MODE_REMOTE_BYTES, ""},
               "http://h/a#bytes=18446744073709551615");
    static const char *const bad[] = {
        "https://h/a.tar",           "https://h/a#bytes=", "https://h/a#bytes=7,etag=", "https://h/a#bytes=7,etag=%2",
        "https://h/a#bytes=7,new=1", "/a#bytes=7"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(mode_remote_unpin(&a, &v, bad[i], &err), MODE_E_VALUE);
        assert_null(a);
    }
    assert_int_equal(mode_remote_bytes("/data/a#bytes=7"), 0);
    assert_int_equal(mode_remote_pin_at("/data/a#bytes=7"), 15);
}

static void test_what_is_shown(void **state)
{
    (void)state;
    static const char *const shown[][2] = {{"https://u:p@h/a?k=1#x", "https://h/a"},
                                           {"http://h/a@b?k", "http://h/a@b"},
                                           {"s3://bucket/what?.tar", "s3://bucket/what?.tar"},
                                           {"/data/a?b@c", "/data/a?b@c"}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        char *text = mode_remote_shown(shown[i][0]);
        assert_string_equal(text, shown[i][1]);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_what_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
