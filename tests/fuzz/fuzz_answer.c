/* Any bytes as a server's response, its headers and then its body: the version that it claims is unchanged after it was
 * added to an address and parsed from it again. */
#include "remote/answer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void header(struct mode__answer *a, const uint8_t *line, size_t n)
{
    char *copy = mode_xmalloc(n + 1); /* its own allocation: ASan catches a read past the end */
    memcpy(copy + 1, line, n);
    mode__answer_header(a, copy + 1, n);
    free(copy);
}

static void check(const struct mode__answer *a)
{
    struct mode_remote_version v, again;
    struct mode_error err = {0};
    struct mode_str said = {0};
    char *address;
    if (a->code < 0 || a->code > 999 || a->n_said > MODE__MOST_SAID) abort();
    if (a->md5[0] && (strlen(a->md5) != 32 || strspn(a->md5, "0123456789abcdef") != 32)) abort();
    mode__answer_add_said(&said, a);
    if (said.len && strpbrk(said.data, "<>\n")) abort();
    mode_str_clear(&said);
    mode__answer_version(&v, a);
    if (v.mark != MODE_REMOTE_BYTES && !v.text[0]) abort();
    char *pinned = mode_remote_pin("https://h/a.tar", &v);
    if (mode_remote_unpin(&address, &again, pinned, &err) || strcmp(address, "https://h/a.tar") != 0 ||
        again.bytes != v.bytes || again.mark != v.mark || strcmp(again.text, v.text) != 0)
        abort();
    free(address);
    free(pinned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mode__answer a;
    a = MODE__NO_ANSWER;
    while (size && *data != '\n') {
        const uint8_t *end = memchr(data, '\n', size);
        const size_t n = end ? (size_t)(end - data) + 1 : size;
        header(&a, data, n);
        data += n;
        size -= n;
    }
    mode__answer_said(&a, (const char *)data, size);
    check(&a);
    return 0;
}
