#include "backend_option.h"

#include "base/backend_name.h"
#include "base/process.h"

#include <stdio.h>
#include <string.h>

enum mode_status backend_open(struct mode_backend **be, const struct backend_options *o, struct mode_error *err)
{
    bool chosen = strcmp(o->name, "auto") == 0;
    *be = NULL;
    enum mode_status st = mode_check_backend_option(o->name, err);
    if (!st) st = mode_process_pick_gpu(o->device, err);
    if (!st) st = mode_backend_choose(be, NULL, chosen && o->device > 0 ? "cuda" : o->name, NULL, err);
    if (!st && chosen && strncmp(mode_backend_name(*be), "cuda", 4) == 0)
        fprintf(stderr, "computing on a GPU (--backend %s)\n", mode_backend_name(*be));
    return st;
}
