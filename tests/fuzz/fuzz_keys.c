/* Any bytes as the response of an S3 credential provider, as JSON and as XML: what is accepted is valid in an HTTP
 * header, and is parsed again from what is written with it. */
#include "base/str.h"
#include "remote/aws_answer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_word(const char *word)
{
    for (; *word; word++)
        if (*word <= ' ' || *word > '~') abort();
}

static void check(struct mode__aws_keys *k, enum mode_status st)
{
    if (!st != (k->id != NULL) || !st != (k->secret != NULL)) abort();
    if (st) {
        if (k->token || k->end != MODE__AWS_NEVER) abort();
        return;
    }
    check_word(k->id);
    check_word(k->secret);
    if (k->token) check_word(k->token);
    if (!*k->id || !*k->secret || (k->token && !*k->token)) abort();
}

static void write_down(const struct mode__aws_keys *k)
{
    struct mode__aws_keys again;
    struct mode_str xml = {0};
    mode_str_add_cstr(&xml, "<Credentials><AccessKeyId>");
    mode_str_add_html(&xml, k->id);
    mode_str_add_cstr(&xml, "</AccessKeyId><SecretAccessKey>");
    mode_str_add_html(&xml, k->secret);
    mode_str_add_cstr(&xml, "</SecretAccessKey></Credentials>");
    if (mode__aws_keys_of_xml(&again, xml.data, "w", NULL) || strcmp(again.id, k->id) != 0 ||
        strcmp(again.secret, k->secret) != 0 || again.token || again.end != MODE__AWS_NEVER)
        abort();
    mode__aws_keys_clear(&again);
    mode_str_clear(&xml);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mode_error err = {0};
    struct mode__aws_keys k;
    int64_t when;
    char *exact = mode_xmalloc(size + 1), *text = mode_xmalloc(size + 1),
         *element; /* exact size: ASan catches a read past the end */
    if (size) memcpy(exact + 1, data, size);
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    check(&k, mode__aws_keys_of_json(&k, exact + 1, size, "Token", "w", &err));
    if (k.id) write_down(&k);
    mode__aws_keys_clear(&k);
    check(&k, mode__aws_keys_of_xml(&k, text, "w", &err));
    if (k.id) write_down(&k);
    mode__aws_keys_clear(&k);
    element = mode__aws_element(text, "Code");
    free(element);
    free(mode__aws_member(exact + 1, size, "Code"));
    (void)mode__aws_time(&when, text);
    free(text);
    free(exact);
    return 0;
}
