/* open_clip_spec.h - translates a command line of open_clip to a run spec.
 *
 * The dense model of the run is the one that the command trains: open_clip's defaults that are not ours are written
 * out. Every option is accounted for: by a key, or by a comment that says why it is not needed or not supported.
 *
 * Source:  open_clip 3.3.0, open_clip_train/{params,main,data,scheduler,distributed}.py.
 * Threads: reentrant. */
#ifndef MODE_SERVICES_MODE_OPEN_CLIP_SPEC_H
#define MODE_SERVICES_MODE_OPEN_CLIP_SPEC_H

#include "init_request.h"
#include "open_clip_command.h"

/* t: the spec; said: lines for the user, what is not supported and what to do before the run. What r gives replaces
 * what the command says. Errors: MODE_E_USAGE: an option's value is none that open_clip accepts, or there are no data;
 * MODE_E_CONFIG: the model is not supported. */
enum mode_status open_clip_spec(struct spec_text *t, struct mode_str *said, const struct open_clip_command *c,
                                const struct init_request *r, struct mode_error *err);

#endif
