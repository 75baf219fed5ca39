/* Any bytes as a run spec, from a file or submitted over the network: an error sentence, or a spec that is unchanged
 * after it was written as text and read again. */
#include "pipeline/spec.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct mode_spec *s)
{
    uint64_t seed, total, warmup;
    struct mode_error err = {0};
    if (!s->name || !s->name[0] || s->name[0] == '.' || strchr(s->name, '/')) abort(); /* it names a folder */
    if (!s->data_train.n || !s->model_config || !s->cluster.fine || !s->cluster.coarse || s->train.batch < 2) abort();
    if (mode_spec_steps(s, 1000, 0, &seed, &total, &err)) {
        if (!err.text[0]) abort();
    } else if (seed >= total && total > 0 && s->train.init[0] == '\0') {
        abort();
    } else if (mode_spec_warmup(s, total, &warmup, &err) == MODE_OK && warmup > total) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mode_error err = {0};
    struct mode_spec spec, again;
    char *text = malloc(size + 1);
    if (!text) abort();
    memcpy(text, data, size);
    text[size] = '\0';
    if (mode_spec_parse(&spec, text, "/nowhere", "spec", &err)) {
        if (!err.text[0]) abort();
    } else {
        check(&spec);
        if (mode_spec_parse(&again, spec.text, spec.folder, "spec", &err) || strcmp(again.name, spec.name) != 0)
            abort();
        mode_spec_clear(&again);
        mode_spec_clear(&spec);
    }
    free(text);
    return 0;
}
