/* Amazon's published examples for Signature Version 4: the general ones (service "service"), and those of S3. */
#include "base/str.h"
#include "remote/sigv4.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N(list) (sizeof(list) / sizeof *(list))

static const char no_body[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const struct mode_sigv4_key general = {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1",
                                              "service"},
                                   s3 = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                         "us-east-1", "s3"};

static void signs(const struct mode_sigv4_request *r, const struct mode_sigv4_key *key, const char *time,
                  const char *names, const char *signature)
{
    char *got = mode_sigv4_authorization(r, key, time);
    char *want = mode_xasprintf("AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request,SignedHeaders=%s,"
                                "Signature=%s",
                                key->id, time, key->service, names, signature);
    assert_string_equal(got, want);
    free(got);
    free(want);
}

static void test_the_general_examples(void **state)
{
    (void)state;
    static const char time[] = "20150830T123600Z";
    const struct mode_sigv4_pair header[] = {{"X-Amz-Date", time}, {"Host", "example.amazonaws.com"}};
    const struct mode_sigv4_pair query[] = {{"Param2", "value2"}, {"Param1", "value1"}};
    struct mode_sigv4_request r = {
        .method = "GET", .path = "/", .header = header, .n_header = N(header), .payload = no_body};
    signs(&r, &general, time, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    r.query = query;
    r.n_query = N(query);
    signs(&r, &general, time, "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}

static void test_the_examples_of_s3(void **state)
{
    (void)state;
    static const char time[] = "20130524T000000Z", host[] = "examplebucket.s3.amazonaws.com";
    const struct mode_sigv4_pair with_range[] = {
        {"Host", host}, {"Range", "bytes=0-9"}, {"x-amz-content-sha256", no_body}, {"x-amz-date", time}};
    const struct mode_sigv4_pair header[] = {{"Host", host}, {"x-amz-content-sha256", no_body}, {"x-amz-date", time}};
    const struct mode_sigv4_pair empty[] = {{"lifecycle", ""}}, list[] = {{"prefix", "J"}, {"max-keys", "2"}};
    struct mode_sigv4_request r = {
        .method = "GET", .path = "/test.txt", .header = with_range, .n_header = N(with_range), .payload = no_body};
    signs(&r, &s3, time, "host;range;x-amz-content-sha256;x-amz-date",
          "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    r = (struct mode_sigv4_request){.method = "GET",
                                    .path = "/",
                                    .query = empty,
                                    .n_query = 1,
                                    .header = header,
                                    .n_header = N(header),
                                    .payload = no_body};
    signs(&r, &s3, time, "host;x-amz-content-sha256;x-amz-date",
          "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    r.query = list;
    r.n_query = 2;
    signs(&r, &s3, time, "host;x-amz-content-sha256;x-amz-date",
          "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

/* Blanks in a value, and what libcurl's own signer gets wrong: "*", "=" and "+" in a query. */
static void test_the_canonical_text(void **state)
{
    (void)state;
    const struct mode_sigv4_pair header[] = {{"My-Header", "  a   b  "}, {"HOST", "h"}};
    const struct mode_sigv4_pair query[] = {{"b", "* =+/"}, {"a", "~"}};
    const struct mode_sigv4_request r = {.method = "HEAD",
                                         .path = "/a%20b",
                                         .query = query,
                                         .n_query = 2,
                                         .header = header,
                                         .n_header = 2,
                                         .payload = "UNSIGNED-PAYLOAD"};
    char *text = mode_sigv4_canonical(&r);
    assert_string_equal(text, "HEAD\n/a%20b\na=~&b=%2A%20%3D%2B%2F\nhost:h\nmy-header:a b\n\nhost;my-header\n"
                              "UNSIGNED-PAYLOAD");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_general_examples),
        cmocka_unit_test(test_the_examples_of_s3),
        cmocka_unit_test(test_the_canonical_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
