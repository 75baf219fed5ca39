/* router_option.h - the options --router, --router-params and --top-experts, the same in every verb that weights
 * experts. */
#ifndef MODE_SERVICES_MODE_ROUTER_OPTION_H
#define MODE_SERVICES_MODE_ROUTER_OPTION_H

#include "base/options.h"
#include "ensemble/router.h"

struct router_options {
    const char *name, *params; /* NULL: not given */
    int64_t top;               /* -1: not given; 0: all */
};

/* type has a struct router_options named router; value: the default; help: the help of --router */
#define ROUTER_OPTIONS(type, value, help)                                                                              \
    MODE_OPT_STR(type, router.name, "router", value, "NAME", help),                                                    \
        MODE_OPT_STR(type, router.params, "router-params", NULL, "TEXT",                                               \
                     "constants of the routers' formulas, such as \"lambda=0.1 tau=0.5\" (docs/RUN.md)"),              \
        MODE_OPT_INT(type, router.top, "top-experts", "-1", "N",                                                       \
                     "use only the N experts with the greatest weights (approximate); 0 = all")

/* E_USAGE names an option whose value is not a router, a constant or a number of experts. Without --router *router is
 * unchanged; without --router-params *params are the defaults. */
enum mode_status router_check(const struct router_options *o, enum mode_router *router,
                              struct mode_router_params *params, struct mode_error *err);

#endif
