#include "pipeline/board.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/fresh.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "events.out.tfevents."
#define ASIDE  ".new-" /* prefix of temporary files: TensorBoard reads every file with "tfevents" in its name */

static const char train_kind[] = "train", val_kind[] = "val";

struct mode_board {
    struct mode_board_place place;
    char *dir;
    struct series { /* a file that is appended to */
        char *path;
        int fd; /* -1: none yet */
    } train, val;
    struct mode_str record;
};

/* ---- names ---- */

struct name {
    char *file; /* "" = none */
    int64_t seconds;
    uint64_t fence;
};

/* <prefix><seconds>.<host>.<16 hex>.<kind> */
static bool parse_name(struct name *n, const char *file, const char *kind)
{
    char *end;
    if (strncmp(file, PREFIX, sizeof PREFIX - 1) != 0) return false;
    n->seconds = strtoll(file + sizeof PREFIX - 1, &end, 10);
    const size_t tail = strlen(kind) + 1, left = strlen(end);
    if (left < tail + 18 || end[left - tail] != '.' || strcmp(end + left - tail + 1, kind) != 0) return false;
    const char *fence = end + left - tail - 17;
    if (fence[0] != '.' || strspn(fence + 1, "0123456789abcdef") != 16) return false;
    n->fence = strtoull(fence + 1, NULL, 16);
    return true;
}

struct listing {
    struct name train, val; /* the newest of each */
    int64_t newest_s;       /* of all event files */
    bool any;
};

static void take(struct name *best, const struct name *n, const char *file)
{
    if (best->file && n->seconds < best->seconds) return;
    free(best->file);
    *best = *n;
    best->file = mode_xstrdup(file);
}

static enum mode_status list(struct listing *l, const char *dir, struct mode_error *err)
{
    DIR *d = mode_fresh_opendir(dir);
    *l = (struct listing){0};
    if (!d) return errno == ENOENT ? MODE_OK : mode_output_fail(err, errno, dir, "be listed");
    for (const struct dirent *e; (e = readdir(d));) {
        struct name n = {0};
        if (!strstr(e->d_name, "tfevents")) continue;
        l->any = true;
        if (strncmp(e->d_name, PREFIX, sizeof PREFIX - 1) == 0) {
            const int64_t s = strtoll(e->d_name + sizeof PREFIX - 1, NULL, 10);
            if (s > l->newest_s) l->newest_s = s;
        }
        if (parse_name(&n, e->d_name, train_kind)) take(&l->train, &n, e->d_name);
        if (parse_name(&n, e->d_name, val_kind)) take(&l->val, &n, e->d_name);
    }
    closedir(d);
    return MODE_OK;
}

static void listing_clear(struct listing *l)
{
    free(l->train.file);
    free(l->val.file);
}

/* A name that sorts after all existing ones, even if the clocks of other machines are ahead. */
static char *new_name(const struct listing *l, const struct mode_board_place *place, const char *kind)
{
    char host[64] = "";
    int64_t now = mode_clock_wall_ms() / 1000;
    if (gethostname(host, sizeof host - 1) != 0 || !host[0]) snprintf(host, sizeof host, "host");
    for (char *c = host; *c; c++)
        if (!isalnum((unsigned char)*c)) *c = '-';
    if (now <= l->newest_s) now = l->newest_s + 1;
    return mode_xasprintf(PREFIX "%010" PRId64 ".%s.%016" PRIx64 ".%s", now, host, place->fence, kind);
}

/* Replaces the file by an empty one: a reader moves on to the next file only while it finds this name. A superseded
 * attempt that still writes does so into the old inode, which nobody reads. */
static void make_empty(const char *dir, const char *path)
{
    char *aside = mode_path_join(dir, ASIDE "empty");
    const int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd >= 0) close(fd);
    if (fd < 0 || rename(aside, path) != 0) unlink(path);
    free(aside);
}

/* Empties every other file of these kinds, or removes it if it is empty already. Failures are ignored. */
static void retire_others(const char *dir, const char *keep, bool train)
{
    DIR *d = mode_fresh_opendir(dir);
    if (!d) return;
    for (const struct dirent *e; (e = readdir(d));) {
        struct name n = {0};
        struct stat s;
        const bool litter = strncmp(e->d_name, ASIDE, sizeof ASIDE - 1) == 0;
        if (strcmp(e->d_name, keep) == 0) continue;
        if (!litter && !parse_name(&n, e->d_name, val_kind) && !(train && parse_name(&n, e->d_name, train_kind)))
            continue;
        char *path = mode_path_join(dir, e->d_name);
        if (litter || (stat(path, &s) == 0 && s.st_size == 0))
            unlink(path);
        else
            make_empty(dir, path);
        free(path);
    }
    closedir(d);
}

/* ---- rows ---- */

enum { SCALARS = 8 };

static double wall_s(void)
{
    return (double)mode_clock_wall_ms() / 1000;
}

/* The scalars of a row of steps.jsonl; returns their number, 0: not a row. */
static size_t row_scalars(struct mode_scalar s[SCALARS], uint64_t *step, const char *row, size_t size)
{
    static const struct {
        const char *key, *tag;
    } what[] = {
        {"loss", "train/loss"}, {"lr", "train/lr"}, {"logit_scale", "train/scale"}, {"grad_norm", "train/grad_norm"}};
    json_t *o = json_loadb(row, size, 0, NULL);
    size_t n = 0;
    *step = (uint64_t)json_integer_value(json_object_get(o, "step"));
    for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
        const json_t *x = json_object_get(o, what[i].key);
        if (json_is_number(x)) s[n++] = (struct mode_scalar){what[i].tag, json_number_value(x)};
    }
    json_decref(o);
    return *step ? n : 0;
}

/* The records of these rows; those that `old`, the bytes of an earlier file, already has are copied. */
static void add_rows(struct mode_str *out, const char *rows, const char *old, size_t n_old)
{
    struct mode_tfevent e = {0};
    bool have = true;
    size_t at = 0;
    for (const char *line = rows, *end; line && *line && (end = strchr(line, '\n')); line = end + 1) {
        struct mode_scalar s[SCALARS];
        uint64_t step;
        const size_t n = row_scalars(s, &step, line, (size_t)(end - line));
        if (!n) continue;
        while (have && (!e.summary || e.step < step)) have = mode_tfevents_next(&e, old, n_old, &at);
        if (have && e.step == step && mode_tfevents_says(&e, s, n))
            mode_str_add(out, e.record, e.size);
        else
            mode_tfevents_scalars(out, wall_s(), step, s, n);
    }
}

/* ---- results ---- */

/* acc1 and acc5 have open_clip's tags ("imagenet-zeroshot-val-top1"), other metrics their own names. */
void mode_board_metrics(struct mode_board_scalars *all, const json_t *result)
{
    const char *task = json_string_value(json_object_get(result, "dataset")), *key;
    json_t *value;
    json_object_foreach(json_object_get(result, "metrics"), key, value)
    {
        const char *name = strcmp(key, "acc1") == 0   ? "zeroshot-val-top1"
                           : strcmp(key, "acc5") == 0 ? "zeroshot-val-top5"
                                                      : key;
        if (!task || !json_is_number(value)) continue;
        all->s = mode_xrealloc(all->s, (all->n + 1) * sizeof *all->s);
        all->s[all->n++] = (struct mode_scalar){mode_xasprintf("val/%s-%s", task, name), json_number_value(value)};
    }
}

void mode_board_scalars_clear(struct mode_board_scalars *all)
{
    for (size_t i = 0; i < all->n; i++) free((char *)all->s[i].tag);
    free(all->s);
    *all = (struct mode_board_scalars){0};
}

/* The records of lines of validation.jsonl, one per step; those that `old`, the bytes of an earlier file, already has
 * are copied. */
static void add_results(struct mode_str *out, const char *lines, const char *old, size_t n_old)
{
    struct mode_tfevent e = {0};
    struct mode_board_scalars s = {0};
    uint64_t step = 0, next;
    size_t at = 0;
    bool have = true;
    for (const char *line = lines, *end; line; line = end + 1) {
        json_t *row = *line && (end = strchr(line, '\n')) ? json_loadb(line, (size_t)(end - line), 0, NULL) : NULL;
        next = (uint64_t)json_integer_value(json_object_get(row, "step"));
        if (s.n > 0 && (!row || next != step)) {
            while (have && (!e.summary || e.step < step)) have = mode_tfevents_next(&e, old, n_old, &at);
            if (have && e.step == step && mode_tfevents_says(&e, s.s, s.n))
                mode_str_add(out, e.record, e.size);
            else
                mode_tfevents_scalars(out, wall_s(), step, s.s, s.n);
            mode_board_scalars_clear(&s);
        }
        if (!row) break;
        step = next;
        mode_board_metrics(&s, row);
        json_decref(row);
    }
    mode_board_scalars_clear(&s);
}

/* ---- files ---- */

static enum mode_status read_old(char **data, size_t *size, const char *dir, const struct name *name,
                                 struct mode_error *err)
{
    *data = NULL;
    *size = 0;
    if (!name->file) return MODE_OK;
    char *path = mode_path_join(dir, name->file);
    enum mode_status st = mode_file_read(path, 0, data, size, err);
    free(path);
    return st == MODE_E_NOINPUT ? MODE_OK : st;
}

/* Creates the new file atomically and retires the older ones. */
static enum mode_status put_file(char **path, const struct mode_board_place *place, const struct listing *l,
                                 const char *kind, const struct mode_str *data, struct mode_error *err)
{
    char *name = new_name(l, place, kind), *aside = mode_xasprintf("%s/" ASIDE "%016" PRIx64, place->dir, place->fence);
    *path = mode_path_join(place->dir, name);
    enum mode_status st = mode_file_write_atomic(aside, data->data, data->len, err);
    if (!st && rename(aside, *path) != 0) st = mode_output_fail(err, errno, *path, "be created");
    if (!st) retire_others(place->dir, name, kind == train_kind);
    free(name);
    free(aside);
    return st;
}

static enum mode_status begin(struct listing *l, const struct mode_board_place *place, struct mode_error *err)
{
    enum mode_status st = mode_dir_make(place->dir, err);
    if (!st) st = list(l, place->dir, err);
    if (!st && l->train.file && l->train.fence > place->fence)
        st = MODE_FAIL(err, MODE_E_TEMP, "%s: a later attempt writes its curve there", place->dir);
    return st;
}

/* *path: the new file of those steps, the only one that is not empty; NULL, if `keep`: the existing file is equal. */
static enum mode_status make_file(char **path, const struct mode_board_place *place, uint64_t start, const char *rows,
                                  bool keep, struct mode_error *err)
{
    struct listing l = {0};
    struct mode_str head = {0}, steps = {0};
    char *old = NULL;
    size_t n_old = 0;
    *path = NULL;
    enum mode_status st = begin(&l, place, err);
    if (!st) st = read_old(&old, &n_old, place->dir, &l.train, err);
    if (st) goto out;
    mode_tfevents_version(&head, wall_s());
    mode_tfevents_start(&head, wall_s(), start);
    add_rows(&steps, rows, old, n_old);
    if (keep && n_old == head.len + steps.len && steps.len && memcmp(old + head.len, steps.data, steps.len) == 0)
        goto out;
    mode_str_add(&head, steps.data ? steps.data : "", steps.len);
    st = put_file(path, place, &l, train_kind, &head, err);
out:
    listing_clear(&l);
    mode_str_clear(&head);
    mode_str_clear(&steps);
    free(old);
    return st;
}

static enum mode_status open_series(struct series *s, struct mode_error *err)
{
    s->fd = open(s->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    return s->fd < 0 ? mode_output_fail(err, errno, s->path, "be opened") : MODE_OK;
}

/* Append b's record with one write(2), so that a reader sees it whole. */
static enum mode_status write_record(const struct mode_board *b, const struct series *s, struct mode_error *err)
{
    const ssize_t w = write(s->fd, b->record.data, b->record.len);
    if (w == (ssize_t)b->record.len) return MODE_OK;
    return MODE_FAIL(err, MODE_E_IO, "%s: writing failed: %s", s->path, w < 0 ? strerror(errno) : "no room");
}

/* The bytes of the existing file of results. */
static enum mode_status read_results(char **old, size_t *n_old, const struct mode_board_place *place,
                                     struct mode_error *err)
{
    struct listing l = {0};
    *old = NULL;
    *n_old = 0;
    enum mode_status st = begin(&l, place, err);
    if (!st) st = read_old(old, n_old, place->dir, &l.val, err);
    listing_clear(&l);
    return st;
}

/* Create a file of results and open it for appending. */
static enum mode_status make_results(struct mode_board *b, const char *results, const char *old, size_t n_old,
                                     struct mode_error *err)
{
    struct listing l = {0};
    struct mode_str data = {0};
    enum mode_status st = begin(&l, &b->place, err);
    mode_tfevents_version(&data, wall_s());
    add_results(&data, results, old, n_old);
    if (!st) st = put_file(&b->val.path, &b->place, &l, val_kind, &data, err);
    if (!st) st = open_series(&b->val, err);
    listing_clear(&l);
    mode_str_clear(&data);
    return st;
}

enum mode_status mode_board_open(struct mode_board **b, const struct mode_board_place *place, uint64_t start,
                                 const char *rows, const char *results, struct mode_error *err)
{
    char *old = NULL;
    size_t n_old = 0;
    *b = mode_xmalloc(sizeof **b);
    **b = (struct mode_board){.dir = mode_xstrdup(place->dir), .train.fd = -1, .val.fd = -1};
    (*b)->place = (struct mode_board_place){(*b)->dir, place->fence};
    enum mode_status st = read_results(&old, &n_old, place, err); /* before make_file retires them */
    if (!st) st = make_file(&(*b)->train.path, place, start, rows, false, err);
    if (!st) st = open_series(&(*b)->train, err);
    if (!st && results && *results) st = make_results(*b, results, old, n_old, err);
    free(old);
    if (st) mode_board_close(b);
    return st;
}

enum mode_status mode_board_add(struct mode_board *b, const char *row, const struct mode_board_pace *pace,
                                struct mode_error *err)
{
    struct mode_scalar s[SCALARS];
    uint64_t step;
    size_t n = row_scalars(s, &step, row, strcspn(row, "\n"));
    if (n == 0) /* logit_scale is NaN; so is the next loss, which ends the training */
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the row of a step is not JSON: %.200s", b->train.path, row);
    MODE_ASSERT(n + 4 <= SCALARS);
    s[n++] = (struct mode_scalar){"train/samples_per_second", pace->samples_per_second};
    s[n++] = (struct mode_scalar){"train/samples_per_second_per_gpu", pace->samples_per_second / pace->processes};
    s[n++] = (struct mode_scalar){"train/data_time", pace->data_seconds};
    s[n++] = (struct mode_scalar){"train/batch_time", pace->step_seconds};
    mode_str_reset(&b->record);
    mode_tfevents_scalars(&b->record, wall_s(), step, s, n);
    return write_record(b, &b->train, err);
}

enum mode_status mode_board_validated(struct mode_board *b, const char *results, struct mode_error *err)
{
    if (b->val.fd < 0) return make_results(b, results, NULL, 0, err);
    mode_str_reset(&b->record);
    add_results(&b->record, results, NULL, 0);
    return write_record(b, &b->val, err);
}

static void close_series(struct series *s)
{
    if (s->fd >= 0) close(s->fd);
    free(s->path);
}

void mode_board_close(struct mode_board **b)
{
    if (!*b) return;
    close_series(&(*b)->train);
    close_series(&(*b)->val);
    mode_str_clear(&(*b)->record);
    free((*b)->dir);
    free(*b);
    *b = NULL;
}

enum mode_status mode_board_complete(uint64_t *last, const struct mode_board_place *place, const char *rows,
                                     struct mode_error *err)
{
    struct mode_scalar s[SCALARS];
    const size_t size = strlen(rows), head = strcspn(rows, "\n");
    uint64_t first;
    const char *tail = rows + (size ? size - 1 : 0); /* the last line */
    while (tail > rows && tail[-1] != '\n') tail--;
    *last = 0;
    if (!size) return MODE_OK; /* a pretrained model that was not trained */
    if (!row_scalars(s, &first, rows, head) || !row_scalars(s, last, tail, strcspn(tail, "\n")))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the model's rows are not steps", place->dir);
    char *path;
    enum mode_status st = make_file(&path, place, first - 1, rows, true, err);
    free(path);
    return st;
}

/* before: the old file's records of earlier steps. *is_next: it has no others, so that a record can be appended.
 * Returns whether it has exactly one more record, of n_record bytes, which says s. */
static bool says_already(struct mode_str *before, bool *is_next, const char *old, size_t n_old, uint64_t step,
                         const struct mode_scalar *s, size_t n, size_t n_record)
{
    struct mode_tfevent e = {0};
    size_t at = 0;
    bool is_last = false;
    while (mode_tfevents_next(&e, old, n_old, &at)) {
        is_last = e.summary && e.step == step && mode_tfevents_says(&e, s, n);
        if (e.summary && e.step < step) mode_str_add(before, e.record, e.size);
    }
    *is_next = n_old > 0 && n_old == before->len;
    return is_last && n_old == before->len + n_record;
}

/* Append: a reader of the file sees one more point. */
static enum mode_status add_to_file(const char *dir, const struct name *name, const struct mode_str *record,
                                    struct mode_error *err)
{
    struct mode_board b = {.record = *record};
    struct series s = {.path = mode_path_join(dir, name->file), .fd = -1};
    enum mode_status st = open_series(&s, err);
    if (!st) st = write_record(&b, &s, err);
    close_series(&s);
    return st;
}

enum mode_status mode_board_results(const struct mode_board_place *place, uint64_t step, const struct mode_scalar *s,
                                    size_t n, struct mode_error *err)
{
    struct listing l = {0};
    struct mode_str all = {0}, record = {0};
    char *old = NULL, *path = NULL;
    size_t n_old = 0;
    bool is_next;
    enum mode_status st = begin(&l, place, err);
    if (!st) st = read_old(&old, &n_old, place->dir, &l.val, err);
    if (st) goto out;
    mode_tfevents_version(&all, wall_s());
    mode_tfevents_scalars(&record, wall_s(), step, s, n);
    if (says_already(&all, &is_next, old, n_old, step, s, n, record.len)) goto out;
    if (is_next) {
        st = add_to_file(place->dir, &l.val, &record, err);
        goto out;
    }
    mode_str_add(&all, record.data, record.len);
    st = put_file(&path, place, &l, val_kind, &all, err);
out:
    listing_clear(&l);
    mode_str_clear(&all);
    mode_str_clear(&record);
    free(old);
    free(path);
    return st;
}

enum mode_status mode_board_unused(const char *dir, struct mode_error *err)
{
    struct listing l;
    enum mode_status st = list(&l, dir, err);
    if (!st && l.any)
        st = MODE_FAIL(err, MODE_E_CREATE,
                       "%s: holds event files already, and a folder is for one training. HINT: name another folder",
                       dir);
    listing_clear(&l);
    return st;
}
