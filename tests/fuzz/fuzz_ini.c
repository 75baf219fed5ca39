/* Any bytes as a file of AWS profiles: a lookup terminates; what it finds is one line without surrounding blanks, and
 * is found again after it was written to a file. */
#include "base/str.h"
#include "remote/aws_profile.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const sections[] = {"default", "profile lab", ""}, *const keys[] = {"region", "a", ""};
    struct mode_str text = {0};
    mode_str_add(&text, data, size);
    for (size_t s = 0; s < 3; s++)
        for (size_t k = 0; text.data && k < 3; k++) {
            char *value = mode__aws_ini(text.data, sections[s], keys[k]);
            if (!value) continue;
            const size_t n = strlen(value);
            if (strchr(value, '\n') || (n && (strchr(" \t\r", value[0]) || strchr(" \t\r", value[n - 1])))) abort();
            char *written = mode_xasprintf("[default]\nregion=%s\n", value),
                 *again = mode__aws_ini(written, "default", "region");
            if (!again || strcmp(again, value) != 0) abort();
            free(written);
            free(again);
            free(value);
        }
    mode_str_clear(&text);
    return 0;
}
