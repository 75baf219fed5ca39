#include "train_folder.h"

#include "base/file.h"
#include "base/str.h"
#include "pipeline/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void train_folder_name(struct train_folder *f, const char *path)
{
    *f = (struct train_folder){.path = path,
                               .config = mode_path_join(path, MODE_FILE_CLIP_CONFIG),
                               .weights = mode_path_join(path, MODE_FILE_CLIP_WEIGHTS),
                               .optimizer = mode_path_join(path, MODE_FILE_CLIP_OPTIMIZER),
                               .steps = mode_path_join(path, MODE_FILE_STEPS),
                               .summary = mode_path_join(path, MODE_FILE_TRAIN),
                               .validation = mode_path_join(path, MODE_FILE_VALIDATION)};
    f->outputs = (struct mode_train_outputs){f->config, f->weights, f->optimizer, f->steps, f->summary, f->validation};
}

enum mode_status train_folder_open(struct train_folder *f, bool resume, struct mode_error *err)
{
    enum mode_status st = resume ? mode_input_folder(f->path, err) : MODE_OK;
    if (st) return mode_error_prefix(err, st, "--resume");
    char *latest = mode_path_join(f->path, "checkpoints/latest");
    const bool interrupted = mode_file_exists(latest);
    free(latest);
    if (mode_file_exists(f->weights))
        return MODE_FAIL(err, MODE_E_CREATE, "%s: exists already; a finished model is not overwritten", f->weights);
    if (!resume && interrupted)
        return MODE_FAIL(err, MODE_E_CREATE,
                         "%s: holds an interrupted training: --resume goes on with it, or name another folder",
                         f->path);
    if (resume && !interrupted)
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "--resume: %s holds no checkpoint of an interrupted training; without --resume one begins",
                         f->path);
    st = mode_output_folder_make(&f->made, f->path, err);
    if (st) return st;
    const char *const all[] = {f->config, f->weights, f->optimizer, f->steps, f->summary, f->validation};
    for (size_t i = 0; !st && i < sizeof all / sizeof *all; i++) {
        st = mode_output_file(all[i], err);
        f->before[i] = mode_file_exists(all[i]);
    }
    f->owned = st == MODE_OK;
    return st;
}

enum mode_status train_folder_resume(struct train_folder *f, char **dir, struct mode_error *err)
{
    char *latest = mode_path_join(f->path, "checkpoints/latest");
    enum mode_status st = mode_file_read(latest, 256, &f->newest, NULL, err);
    if (st)
        st = mode_error_prefix(err, st, "--resume");
    else
        *dir = train_folder_checkpoint(f, f->newest);
    free(latest);
    return st;
}

char *train_folder_checkpoint(const struct train_folder *f, const char *name)
{
    return mode_xasprintf("%s/checkpoints/%s", f->path, name);
}

enum mode_status train_folder_checkpointed(struct train_folder *f, const char *name, struct mode_error *err)
{
    char *latest = mode_path_join(f->path, "checkpoints/latest"), *old = f->newest;
    enum mode_status st = mode_file_write_atomic(latest, name, strlen(name), err);
    free(latest);
    if (st) return st;
    f->progressed = true;
    f->newest = mode_xstrdup(name);
    if (old && strcmp(old, name) != 0) {
        char *dir = train_folder_checkpoint(f, old);
        st = mode_dir_remove(dir, err);
        free(dir);
    }
    free(old);
    return st;
}

char *train_folder_captions(const struct train_folder *f, size_t shard)
{
    return mode_xasprintf("%s/captions/%04zu.bin", f->path, shard);
}

enum mode_status train_folder_finish(struct train_folder *f, struct mode_error *err)
{
    char *checkpoints = mode_path_join(f->path, "checkpoints");
    f->owned = false;
    enum mode_status st = mode_dir_remove(checkpoints, err);
    free(checkpoints);
    return st;
}

static void remove_captions(const struct train_folder *f)
{
    char *dir = mode_path_join(f->path, "captions");
    for (size_t i = 0; i < f->n_captions; i++) {
        char *path = train_folder_captions(f, i);
        unlink(path);
        free(path);
    }
    rmdir(dir);
    free(dir);
}

void train_folder_close(struct train_folder *f, enum mode_status st, struct mode_error *err)
{
    const char *const all[] = {f->config, f->weights, f->optimizer, f->steps, f->summary, f->validation};
    if (st && f->owned) {
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (!f->before[i]) unlink(all[i]);
        if (!f->newest) {
            char *checkpoints = mode_path_join(f->path, "checkpoints");
            remove_captions(f);
            rmdir(checkpoints);
            free(checkpoints);
        } else if (f->progressed && err) {
            const size_t n = strlen(err->text);
            snprintf(err->text + n, sizeof err->text - n, "%s --resume goes on from its checkpoint %s",
                     strstr(err->text, "HINT: ") ? ", or" : ". HINT:", f->newest);
        }
    }
    mode_output_folder_close(&f->made, st != MODE_OK);
    free(f->newest);
    free(f->config);
    free(f->weights);
    free(f->optimizer);
    free(f->steps);
    free(f->summary);
    free(f->validation);
}
