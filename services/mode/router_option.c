#include "router_option.h"

#include <limits.h>

enum mode_status router_check(const struct router_options *o, enum mode_router *router,
                              struct mode_router_params *params, struct mode_error *err)
{
    struct mode_error why;
    if (o->name && mode_router_parse(router, o->name, &why))
        return MODE_FAIL(err, MODE_E_USAGE, "--router: %s", why.text);
    if (mode_router_params_parse(params, o->params, &why))
        return MODE_FAIL(err, MODE_E_USAGE, "--router-params: %s", why.text);
    if (o->top < -1 || o->top > INT_MAX)
        return MODE_FAIL(err, MODE_E_USAGE, "--top-experts: %lld is out of range, expected 0 (all) or more",
                         (long long)o->top);
    return MODE_OK;
}
