#include "pipeline/pack.h"

#include "base/file.h"
#include "base/fresh.h"
#include "base/output.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/image.h"
#include "data/utf8.h"
#include "pipeline/pack_impl.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 32, MAX_PICTURE = 64 << 20, MAX_TEXT = 1 << 20 };

enum mode_status mode__pack_bad(struct mode__packer *p, uint64_t *count, enum mode_status st, struct mode_error *err)
{
    ++*count;
    if (p->skip_bad) return MODE_OK;
    size_t n = err ? strlen(err->text) : 0;
    if (err) snprintf(err->text + n, sizeof err->text - n, ". HINT: --skip-bad counts such pairs and goes on");
    return st;
}

static enum mode_status add_member(struct mode__packer *p, const char *key, const char *ext, const void *data,
                                   size_t size, struct mode_error *err)
{
    char *name = mode_xasprintf("%s.%s", key, ext);
    enum mode_status st = mode_tar_writer_add(p->tar, name, data, size, err);
    free(name);
    return st;
}

static char *shard_path(const char *dir, uint64_t shard, bool of_task)
{
    return mode_xasprintf(of_task ? "%s/%llu.tar" : "%s/%05llu.tar", dir, (unsigned long long)shard);
}

/* Open the tar of the next pair, unless it is open, and choose the pair's key. */
static enum mode_status begin_pair(struct mode__packer *p, char key[32], struct mode_error *err)
{
    const uint64_t shard = p->n->packed / p->per_shard, row = p->n->packed % p->per_shard;
    if (p->of_task)
        snprintf(key, 32, "s%07llu", (unsigned long long)p->n->packed);
    else
        snprintf(key, 32, "%05llu%06llu", (unsigned long long)shard, (unsigned long long)row);
    if (p->tar) return MODE_OK;
    if (p->of_task && shard == MODE_EVALSET_MAX_SHARDS)
        return MODE_FAIL(err, MODE_E_VALUE, "a task of more than %d shards cannot be read. HINT: a larger --per-shard",
                         MODE_EVALSET_MAX_SHARDS);
    char *path = shard_path(p->out, shard, p->of_task);
    enum mode_status st = mode_tar_writer_open(&p->tar, path, err);
    free(path);
    return st;
}

/* Members of a sample are sorted by extension: cls < jpg < json < png < txt < webp. */
static enum mode_status add_pair(struct mode__packer *p, const uint8_t *image, size_t image_size, const char *image_ext,
                                 const char *text, size_t text_size, const char *text_ext, struct mode_error *err)
{
    char key[32];
    enum mode_status st = begin_pair(p, key, err);
    if (st) return st;
    const bool text_first = strcmp(text_ext, image_ext) < 0;
    if (text_first) st = add_member(p, key, text_ext, text, text_size, err);
    if (!st) st = add_member(p, key, image_ext, image, image_size, err);
    if (!st && !text_first) st = add_member(p, key, text_ext, text, text_size, err);
    if (st) return st;
    if (++p->n->packed % p->per_shard == 0) {
        p->n->shards++;
        st = mode_tar_writer_finish(&p->tar, err);
    }
    return st;
}

static const char *extension_of(const uint8_t *data, size_t size)
{
    switch (mode_image_sniff(data, size)) {
    case MODE_IMAGE_JPEG: return "jpg";
    case MODE_IMAGE_PNG: return "png";
    case MODE_IMAGE_WEBP: return "webp";
    case MODE_IMAGE_UNKNOWN: break;
    }
    return NULL;
}

enum mode_status mode__pack_one(struct mode__packer *p, const char *picture, const char *text, size_t text_size,
                                const char *text_ext, struct mode_error *err)
{
    char *data = NULL;
    size_t size;
    enum mode_status st = mode_file_read(picture, MAX_PICTURE, &data, &size, err);
    if (st) return mode__pack_bad(p, &p->n->no_file, st, err);
    const uint8_t *bytes = (const uint8_t *)data;
    const char *ext = extension_of(bytes, size);
    if (!ext) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: not a JPEG, PNG or WebP picture but %s", picture,
                       mode_image_looks_like(bytes, size));
        st = mode__pack_bad(p, &p->n->not_an_image, st, err);
    } else if (!mode_image_is_whole(bytes, size)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the picture is cut: its %zu bytes end before the end mark of a %s",
                       picture, size, ext);
        st = mode__pack_bad(p, &p->n->cut_image, st, err);
    } else
        st = add_pair(p, (const uint8_t *)data, size, ext, text, text_size, text_ext, err);
    free(data);
    return st;
}

enum mode_status mode__pack_bad_pair(struct mode__packer *p, const struct mode_pair *pair, struct mode_error *err)
{
    p->n->pairs++;
    return mode__pack_bad(p, pair->fault == MODE_PAIR_NO_CAPTION ? &p->n->no_caption : &p->n->bad_text, MODE_E_FORMAT,
                          err);
}

static uint64_t bad_pictures(const struct mode_pack_counts *n)
{
    return n->no_file + n->not_an_image + n->cut_image;
}

/* Add to err the line of the list, and a guess at the cause of a missing file. */
static void say_where(const struct mode__packer *p, const struct mode_pairs *l, const struct mode_pair *pair,
                      bool is_lost, enum mode_status st, struct mode_error *err)
{
    char *more = NULL;
    if (is_lost && p->n->pairs == 1 && !l->has_header)
        more = mode_xasprintf(", which is not a header with the columns \"%s\" and \"%s\"", l->o.img_key,
                              l->o.caption_key);
    else if (is_lost && pair->picture[0] != '/' && mode_file_exists(pair->picture))
        more = mode_xasprintf(", whose paths start at the list's folder%s and not at the current one",
                              p->of_task ? ", or at --pictures," : "");
    mode_error_prefix(err, st, "%s, line %llu%s", l->name, (unsigned long long)pair->line, more ? more : "");
    free(more);
}

enum mode_status mode__pack_listed(struct mode__packer *p, const struct mode_pairs *l, const struct mode_pair *pair,
                                   const char *folder, const char *text, size_t text_size, const char *text_ext,
                                   struct mode_error *err)
{
    char *path = pair->picture[0] == '/' ? mode_xstrdup(pair->picture) : mode_path_join(folder, pair->picture);
    const uint64_t lost = p->n->no_file, bad = bad_pictures(p->n);
    p->n->pairs++;
    enum mode_status st = mode__pack_one(p, path, text, text_size, text_ext, err);
    if (st && bad_pictures(p->n) > bad) say_where(p, l, pair, p->n->no_file > lost, st, err);
    free(path);
    return st;
}

static enum mode_status pack_pair(struct mode__packer *p, const struct mode_pairs *l, const struct mode_pair *pair,
                                  const char *folder, struct mode_error *err)
{
    if (pair->fault) return mode__pack_bad_pair(p, pair, err);
    if (!pair->many) return mode__pack_listed(p, l, pair, folder, pair->captions, strlen(pair->captions), "txt", err);
    json_t *texts = json_array();
    char *save = NULL;
    for (char *c = strtok_r(pair->captions, "\t", &save); c; c = strtok_r(NULL, "\t", &save))
        json_array_append_new(texts, json_string(c));
    json_t *root = json_pack("{s:o}", "texts", texts);
    char *text = json_dumps(root, JSON_COMPACT);
    enum mode_status st = mode__pack_listed(p, l, pair, folder, text, strlen(text), "json", err);
    free(text);
    json_decref(root);
    return st;
}

char *mode__pack_list_folder(const char *list)
{
    struct stat sb;
    return stat(list, &sb) == 0 && !S_ISREG(sb.st_mode) ? mode_xstrdup(".") : mode_path_folder(list);
}

static enum mode_status pack_list(struct mode__packer *p, const char *list, const struct mode_pairs_options *o,
                                  struct mode_error *err)
{
    struct mode_pairs l;
    struct mode_pair pair;
    bool got = true;
    enum mode_status st = mode_pairs_open(&l, list, o, err);
    if (st) return st;
    char *folder = mode__pack_list_folder(list);
    while (!st && !(st = mode_pairs_next(&l, &pair, &got, err)) && got) st = pack_pair(p, &l, &pair, folder, err);
    mode_pairs_close(&l);
    free(folder);
    return st;
}

/* The picture at path, with the caption beside it. */
static enum mode_status pack_picture(struct mode__packer *p, const char *path, const void *ctx, struct mode_error *err)
{
    (void)ctx;
    static const char *const exts[] = {"txt", "json"};
    const size_t stem = (size_t)(strrchr(path, '.') - path);
    enum mode_status st = MODE_OK;
    char *text = NULL;
    p->n->pairs++;
    for (size_t i = 0; i < 2; i++) {
        size_t size;
        char *beside = mode_xasprintf("%.*s.%s", (int)stem, path, exts[i]);
        const bool there = mode_file_exists(beside);
        if (there && !(st = mode_file_read(beside, MAX_TEXT, &text, &size, err)) && !mode_utf8_is_text(text, size))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is not UTF-8", beside);
        free(beside);
        if (!there) continue;
        st = st ? mode__pack_bad(p, &p->n->bad_text, st, err) : mode__pack_one(p, path, text, size, exts[i], err);
        free(text);
        return st;
    }
    return mode__pack_bad(p, &p->n->no_caption, MODE_FAIL(err, MODE_E_FORMAT, "%s: no .txt or .json beside it", path),
                          err);
}

bool mode__pack_is_picture_name(const char *name)
{
    static const char *const exts[] = {".jpg", ".jpeg", ".png", ".webp"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof exts / sizeof *exts; i++)
        if (strcasecmp(dot, exts[i]) == 0) return true;
    return false;
}

static int skip_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int by_number(const struct dirent **a, const struct dirent **b)
{
    const int c = strverscmp((*a)->d_name, (*b)->d_name);
    return c ? c : strcmp((*a)->d_name, (*b)->d_name);
}

enum mode_status mode__pack_folder(struct mode__packer *p, const char *dir, int depth, mode__pack_picture_fn *picture,
                                   const void *ctx, struct mode_error *err)
{
    struct dirent **list;
    enum mode_status st = MODE_OK;
    if (depth > MAX_DEPTH) return MODE_FAIL(err, MODE_E_VALUE, "%s: folders nested deeper than %d", dir, MAX_DEPTH);
    const int n = mode_fresh_scandir(dir, &list, skip_hidden, by_number);
    if (n < 0) return mode_input_fail(err, errno, dir, "be read");
    for (int i = 0; i < n; i++) {
        struct stat sb;
        char *path = mode_path_join(dir, list[i]->d_name);
        if (!st && stat(path, &sb) == 0 && S_ISDIR(sb.st_mode))
            st = mode__pack_folder(p, path, depth + 1, picture, ctx, err);
        else if (!st && mode__pack_is_picture_name(list[i]->d_name))
            st = picture(p, path, ctx, err);
        free(path);
        free(list[i]);
    }
    free(list);
    return st;
}

/* Shards of an earlier, longer run must not be left among the new ones. */
static enum mode_status check_no_tars(const char *out, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    DIR *d = mode_fresh_opendir(out);
    if (!d) return mode_output_fail(err, errno, out, "be read");
    for (struct dirent *e; !st && (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        if (n > 4 && strcmp(e->d_name + n - 4, ".tar") == 0)
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: holds %s already; give an empty folder", out, e->d_name);
    }
    closedir(d);
    return st;
}

enum mode_status mode__pack_finish(struct mode__packer *p, enum mode_status st, const char *source,
                                   struct mode_error *err)
{
    if (!st && p->tar) {
        p->n->shards++;
        st = mode_tar_writer_finish(&p->tar, err);
    }
    mode_tar_writer_close(&p->tar);
    if (!st && p->n->pairs == 0) st = MODE_FAIL(err, MODE_E_NOINPUT, "%s: no pictures", source);
    return st;
}

/* Move the finished shards to their folder; if one fails, remove all. */
static enum mode_status publish(const struct mode__packer *p, const char *out, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    uint64_t n = 0;
    while (!st && n < p->n->shards) {
        char *from = shard_path(p->out, n, false), *to = shard_path(out, n, false);
        if (rename(from, to) == 0)
            n++;
        else
            st = mode_output_fail(err, errno, to, "be created");
        free(from);
        free(to);
    }
    if (!st) return mode_file_sync(out, err);
    while (n > 0) {
        char *to = shard_path(out, --n, false);
        unlink(to);
        free(to);
    }
    return st;
}

enum mode_status mode_pack(struct mode_pack_counts *n, const char *pairs, const char *out,
                           const struct mode_pack_options *o, struct mode_error *err)
{
    struct mode__packer p = {.n = n, .per_shard = o->per_shard, .skip_bad = o->skip_bad};
    struct stat sb;
    enum mode_status st;
    struct mode_output_folder folder;
    *n = (struct mode_pack_counts){0};
    if (stat(pairs, &sb) != 0) return mode_input_fail(err, errno, pairs, "be opened");
    if ((st = mode_output_folder_make(&folder, out, err))) return st;
    p.out = mode_path_join(out, MODE__PACK_PARTIAL);
    if (!(st = check_no_tars(out, err)) && !(st = mode_dir_remove(p.out, err)) && !(st = mode_dir_make(p.out, err))) {
        st = S_ISDIR(sb.st_mode) ? mode__pack_folder(&p, pairs, 0, pack_picture, NULL, err)
                                 : pack_list(&p, pairs, &o->list, err);
        st = mode__pack_finish(&p, st, pairs, err);
    }
    if (!st) st = publish(&p, out, err);
    if (st) mode_error_rename(err, p.out, out);
    mode_dir_remove(p.out, NULL);
    mode_output_folder_close(&folder, st != MODE_OK);
    free(p.out);
    return st;
}
