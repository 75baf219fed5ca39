#include "encoding.h"

#include <stdio.h>

enum mode_status encoding_show(void *ctx, size_t done, size_t total)
{
    (void)ctx;
    fprintf(stderr, "\r%zu of %zu texts", done, total);
    if (done == total) fprintf(stderr, "\n");
    return MODE_OK;
}
