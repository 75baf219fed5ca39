#include "aws_variables.h"
#include "base/file.h"
#include "base/str.h"
#include "remote/aws.h"
#include "remote/aws_profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *home;

static int begin(void **state)
{
    (void)state;
    struct mode_error err;
    forget_aws();
    if (mode_dir_temporary(&home, &err)) return 1;
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1); /* sources that make requests: test_aws_sources.c */
    return setenv("HOME", home, 1);
}

static int end(void **state)
{
    (void)state;
    mode_dir_remove(home, NULL);
    free(home);
    return 0;
}

static void put(const char *name, const char *text)
{
    struct mode_error err;
    char *dir = mode_path_join(home, ".aws"), *path = mode_path_join(dir, name);
    if (mode_dir_make(dir, &err) || mode_file_write_atomic(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    free(path);
    free(dir);
}

static void finds(const char *id, const char *secret, const char *token, const char *region, const char *endpoint)
{
    struct mode_aws a;
    struct mode_error err;
    if (mode_aws_find(&a, NULL, &err)) fail_msg("%s", err.text);
    const char *const got[] = {a.id, a.secret, a.token, a.region, a.endpoint}, *const want[] = {id, secret, token,
                                                                                                region, endpoint};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(!got[i], !want[i]);
        if (want[i]) assert_string_equal(got[i], want[i]);
    }
    mode_aws_clear(&a);
}

static void refused(const char *part)
{
    struct mode_aws a;
    struct mode_error err;
    assert_int_equal(mode_aws_find(&a, NULL, &err), MODE_E_CONFIG);
    if (!strstr(err.text, part)) fail_msg("\"%s\" lacks \"%s\"", err.text, part);
    assert_null(strstr(err.text, "hidden"));
    mode_aws_clear(&a);
}

static void test_ini(void **state)
{
    (void)state;
    static const char text[] = "key = outside\n[a]\nKEY= one \r\n# key = no\n; key = no\n  key = indented\n[b ]\nkey = "
                               "two=2\nkey=\nother\n[ c ]\r\nkey = first\nkey\t=\tlast\t\n[broken\nkey = no\n[d]";
    static const char *const want[][3] = {{"a", "key", "one"},  {"b", "key", ""},       {"c", "key", "last"},
                                          {"d", "key", NULL},   {"a", "k", NULL},       {"", "key", NULL},
                                          {"b", "other", NULL}, {"broken", "key", NULL}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char *got = mode__aws_ini(text, want[i][0], want[i][1]);
        if (!got != !want[i][2] || (got && strcmp(got, want[i][2]) != 0))
            fail_msg("[%s] %s: \"%s\"", want[i][0], want[i][1], got ? got : "(none)");
        free(got);
    }
    char *marked = mode__aws_ini("\xef\xbb\xbf[a]\r\nkey = one\r\n", "a", "key");
    assert_string_equal(marked ? marked : "nothing", "one");
    free(marked);
    free(mode__aws_ini("", "a", "b"));
    free(mode__aws_ini("[", "a", "b"));
    free(mode__aws_ini("[a]\n=", "a", ""));
}

static void test_where_keys_are_found(void **state)
{
    (void)state;
    finds(NULL, NULL, NULL, "us-east-1", NULL);
    put("credentials", "[default]\naws_access_key_id = D\naws_secret_access_key = DS\n[lab]\naws_access_key_id=L\n"
                       "aws_secret_access_key=LS\naws_session_token=LT\n");
    put("config",
        "[default]\nregion = eu-west-1\n[profile lab]\nregion = eu-north-1\nendpoint_url = http://lab:9000/\n");
    finds("D", "DS", NULL, "eu-west-1", NULL);
    setenv("AWS_PROFILE", "lab", 1);
    finds("L", "LS", "LT", "eu-north-1", "http://lab:9000");
    setenv("AWS_DEFAULT_REGION", "r1", 1);
    setenv("AWS_ENDPOINT_URL", "https://one", 1);
    finds("L", "LS", "LT", "r1", "https://one");
    setenv("AWS_REGION", "r2", 1);
    setenv("AWS_ENDPOINT_URL_S3", "https://two/path/", 1);
    setenv("AWS_ACCESS_KEY_ID", "E", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "ES", 1);
    finds("E", "ES", NULL, "r2", "https://two/path"); /* no session token of another key */
    setenv("AWS_SESSION_TOKEN", "ET", 1);
    finds("E", "ES", "ET", "r2", "https://two/path");
}

static void test_what_is_no_key(void **state)
{
    (void)state;
    setenv("AWS_PROFILE", "nobody", 1);
    refused("no profile \"nobody\"");
    unsetenv("AWS_PROFILE");
    setenv("AWS_ACCESS_KEY_ID", "hidden", 1);
    refused("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
    setenv("AWS_SECRET_ACCESS_KEY", "hidden\nX: y", 1);
    refused("AWS_SECRET_ACCESS_KEY: character 7");
    setenv("AWS_SECRET_ACCESS_KEY", "hidden", 1);
    setenv("AWS_ENDPOINT_URL", "hidden.example", 1);
    refused("AWS_ENDPOINT_URL is not the address");
    setenv("AWS_ENDPOINT_URL", "https://me:hidden@x", 1);
    refused("AWS_ENDPOINT_URL is not the address");
}

static void is_at(const char *endpoint, const char *address, const char *url, const char *host, const char *path)
{
    const struct mode_aws a = {.region = (char *)(uintptr_t) "eu-west-1", .endpoint = (char *)(uintptr_t)endpoint};
    char *got_host, *got_path, *got = mode_aws_url(&got_host, &got_path, &a, address);
    assert_string_equal(got, url);
    assert_string_equal(got_host, host);
    assert_string_equal(got_path, path);
    free(got);
    free(got_host);
    free(got_path);
}

static void test_where_buckets_are(void **state)
{
    (void)state;
    is_at(NULL, "s3://my-bucket/a/b +#?.tar", "https://my-bucket.s3.eu-west-1.amazonaws.com/a/b%20%2B%23%3F.tar",
          "my-bucket.s3.eu-west-1.amazonaws.com", "/a/b%20%2B%23%3F.tar");
    is_at(NULL, "s3://my.bucket/a//b.tar", "https://s3.eu-west-1.amazonaws.com/my.bucket/a//b.tar",
          "s3.eu-west-1.amazonaws.com", "/my.bucket/a//b.tar");
    is_at("http://minio:9000", "s3://b-1/k.tar", "http://minio:9000/b-1/k.tar", "minio:9000", "/b-1/k.tar");
    is_at("https://store:443/v1/s3", "s3://b-1/k.tar", "https://store:443/v1/s3/b-1/k.tar", "store",
          "/v1/s3/b-1/k.tar");
    is_at("http://store:80", "s3://b-1/k.tar", "http://store:80/b-1/k.tar", "store", "/b-1/k.tar");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ini),
        cmocka_unit_test(test_where_buckets_are),
        cmocka_unit_test_setup_teardown(test_where_keys_are_found, begin, end),
        cmocka_unit_test_setup_teardown(test_what_is_no_key, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
