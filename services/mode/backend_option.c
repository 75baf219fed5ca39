#include "backend_option.h"

#include "base/backend_name.h"
#include "base/memory.h"
#include "base/process.h"

#include <stdio.h>
#include <string.h>

enum mode_status backend_check(const struct backend_options *o, struct mode_error *err)
{
    if (o->device < 0 || o->device > INT32_MAX)
        return MODE_FAIL(err, MODE_E_USAGE, "--device: %lld is out of range, expected 0 or more: which of the GPUs",
                         (long long)o->device);
    return mode_check_backend_option(o->name, err);
}

enum mode_status backend_open(struct mode_backend **be, const struct backend_options *o, struct mode_error *err)
{
    bool chosen = strcmp(o->name, "auto") == 0;
    *be = NULL;
    enum mode_status st = backend_check(o, err);
    if (!st) st = mode_process_pick_gpu(o->device, err);
    if (!st) st = mode_backend_choose(be, NULL, chosen && o->device > 0 ? "cuda" : o->name, NULL, err);
    if (!st && chosen && strncmp(mode_backend_name(*be), "cuda", 4) == 0)
        fprintf(stderr, "computing on a GPU (--backend %s)\n", mode_backend_name(*be));
    return st;
}

enum mode_status memory_option(size_t *bytes, const char *text, struct mode_error *err)
{
    *bytes = 0;
    if (strcmp(text, "auto") == 0 || strcmp(text, "0") == 0 || !mode_parse_size(text, "--memory", bytes, NULL))
        return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE, "--memory \"%s\": expected auto, bytes, or a number and k, m, g or t", text);
}
