/* spec_tasks.c - which evaluation tasks the folders of a list contain. */
#include "pipeline/spec.h"

#include "base/file.h"
#include "base/fresh.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/utf8.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static bool is_task(const char *dir)
{
    char *nshards = mode_path_join(dir, "test/nshards.txt");
    bool yes = mode_file_exists(nshards);
    free(nshards);
    return yes;
}

/* The tasks at dir and below, unsorted. A task's folder is not searched for others. */
static enum mode_status find_tasks(struct mode_spec_list *out, const char *dir, int depth, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct dirent *e;
    if (is_task(dir)) {
        mode_spec_list_add(out, mode_xstrdup(dir));
        return MODE_OK;
    }
    if (depth > MODE_SPEC_TASKS_DEPTH) return MODE_OK;
    DIR *d = mode_fresh_opendir(dir);
    if (!d) return mode_error_prefix(err, mode_input_fail(err, errno, dir, "be read"), "evaluate.tasks");
    while (!st && (e = readdir(d))) {
        char *sub = e->d_name[0] == '.' ? NULL : mode_path_join(dir, e->d_name);
        if (sub && is_folder(sub)) st = find_tasks(out, sub, depth + 1, err);
        free(sub);
    }
    closedir(d);
    return st;
}

/* The tasks below dir, sorted by path. */
static enum mode_status tasks_within(const char *dir, const char *key, struct mode_spec_list *out,
                                     struct mode_spec_list *skipped, struct mode_error *err)
{
    struct mode_spec_list found = {0};
    size_t first = out->n;
    enum mode_status st = find_tasks(&found, dir, 1, err);
    if (found.n) qsort(found.item, found.n, sizeof *found.item, by_text);
    for (size_t i = 0; i < found.n; i++) {
        enum mode_task_kind kind = MODE_TASK_OTHER;
        char *word = NULL;
        if (!st) st = mode_evalset_kind(&kind, &word, found.item[i], err);
        if (kind != MODE_TASK_OTHER)
            mode_spec_list_add(out, mode_xstrdup(found.item[i]));
        else if (!st && skipped) {
            char *text = mode_xasprintf("the task %s is left out: its dataset_type.txt says \"%s\", and what can be "
                                        "evaluated is " MODE_TASK_KINDS,
                                        found.item[i], word);
            mode_spec_list_add(skipped, mode_utf8_cleaned(text, strlen(text)));
            free(text);
        }
        free(word);
    }
    if (!st && found.n == 0)
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s: %s is not a CLIP_benchmark folder (it has no test/nshards.txt) and contains none, "
                       "%d folders deep",
                       key, dir, MODE_SPEC_TASKS_DEPTH);
    if (!st && out->n == first)
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s: %s: none of its tasks (%zu) can be evaluated: the dataset_type.txt of each says something "
                       "other than " MODE_TASK_KINDS,
                       key, dir, found.n);
    mode_spec_list_clear(&found);
    return st;
}

enum mode_status mode_spec_tasks(const struct mode_spec_list *given, const char *key, struct mode_spec_list *out,
                                 struct mode_spec_list *skipped, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *out = (struct mode_spec_list){0};
    if (skipped) *skipped = (struct mode_spec_list){0};
    for (size_t i = 0; i < given->n && !st; i++) {
        const char *dir = given->item[i];
        if (is_task(dir))
            mode_spec_list_add(out, mode_xstrdup(dir));
        else
            st = tasks_within(dir, key, out, skipped, err);
    }
    for (size_t i = 0; i < out->n && !st; i++)
        for (size_t j = 0; j < i && !st; j++)
            if (strcmp(mode_path_base(out->item[i]), mode_path_base(out->item[j])) == 0)
                st = MODE_FAIL(err, MODE_E_CONFIG, "%s: %s and %s have the same name", key, out->item[j], out->item[i]);
    if (st) {
        mode_spec_list_clear(out);
        if (skipped) mode_spec_list_clear(skipped);
    }
    return st;
}
