/* open_clip_command.h - reads a command line that starts a training of open_clip.
 *
 *     torchrun --nproc_per_node 8 -m open_clip_train.main --train-data ... --batch-size 256
 *     python -m training.main ..., open_clip_train.main ..., or the options alone
 *
 * Options are read as by open_clip's argparse: `--name value`, `--name=value`, several values after a name, a prefix
 * that fits one name only, and of an option given twice the last. What precedes the program is the launcher: it determines
 * the number of processes (torchrun, srun, mpirun, horovodrun, or WORLD_SIZE=N).
 *
 * Threads: reentrant. */
#ifndef MODE_SERVICES_MODE_OPEN_CLIP_COMMAND_H
#define MODE_SERVICES_MODE_OPEN_CLIP_COMMAND_H

#include "open_clip_names.h"

#include <stdint.h>

struct open_clip_given {
    const struct open_clip_name *option;
    char **value;
    size_t n;   /* of values; 0 for a flag */
    char *text; /* as on the command line, quoted for a shell, on one line */
};

struct open_clip_command {
    char *launcher;            /* text; "": none */
    uint64_t processes, nodes; /* processes on all nodes */
    char *processes_text;      /* "2 nodes * 8 GPUs"; "": one process */
    char *doubt;               /* why the number is assumed; NULL: it is certain */
    struct open_clip_given *given;
    size_t n_given;
    char **unknown; /* texts of options and arguments that open_clip does not have */
    size_t n_unknown;
    char **word; /* owns the words */
    size_t n_words;
};

/* words: the arguments, or the whole command as one, with a shell's quotes. Clear c also after a failure. MODE_E_USAGE:
 * no program of open_clip is called, an option has no value, a quote is not closed. */
enum mode_status open_clip_command_read(struct open_clip_command *c, char *const *words, size_t n,
                                        struct mode_error *err);
void open_clip_command_clear(struct open_clip_command *c);
/* NULL: the option is not given. */
const struct open_clip_given *open_clip_given(const struct open_clip_command *c, const char *name);
/* The option's first value, or `otherwise`. */
const char *open_clip_value(const struct open_clip_command *c, const char *name, const char *otherwise);

#endif
