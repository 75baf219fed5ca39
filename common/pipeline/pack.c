#include "pipeline/pack.h"

#include "base/file.h"
#include "base/str.h"
#include "data/image.h"
#include "data/tar.h"
#include "data/utf8.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 32, MAX_PICTURE = 64 << 20, MAX_TEXT = 1 << 20 };

struct packer {
    struct mode_pack_counts *n;
    const char *out;
    uint32_t per_shard;
    bool skip_bad;
    struct mode_tar_writer *tar; /* NULL between shards */
};

/* A pair that cannot be packed: counted, or the end. */
static enum mode_status bad_pair(struct packer *p, uint64_t *count, enum mode_status st, const char *what,
                                 const char *why, struct mode_error *err)
{
    ++*count;
    return p->skip_bad ? MODE_OK
                       : MODE_FAIL(err, st, "%s: %s. HINT: --skip-bad counts such pairs and goes on", what, why);
}

static enum mode_status add_member(struct packer *p, const char *key, const char *ext, const void *data, size_t size,
                                   struct mode_error *err)
{
    char *name = mode_xasprintf("%s.%s", key, ext);
    enum mode_status st = mode_tar_writer_add(p->tar, name, data, size, err);
    free(name);
    return st;
}

/* Members of a sample are sorted by extension: jpg < json < png < txt < webp. */
static enum mode_status add_pair(struct packer *p, const uint8_t *image, size_t image_size, const char *image_ext,
                                 const char *text, size_t text_size, const char *text_ext, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    char key[32];
    const uint64_t shard = p->n->packed / p->per_shard, row = p->n->packed % p->per_shard;
    if (!p->tar) {
        char *path = mode_xasprintf("%s/%05llu.tar", p->out, (unsigned long long)shard);
        st = mode_tar_writer_open(&p->tar, path, err);
        free(path);
        if (st) return st;
    }
    snprintf(key, sizeof key, "%05llu%06llu", (unsigned long long)shard, (unsigned long long)row);
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

static enum mode_status pack_one(struct packer *p, const char *picture, const char *text, size_t text_size,
                                 const char *text_ext, struct mode_error *err)
{
    char *data = NULL;
    size_t size;
    struct mode_error why;
    if (mode_file_read(picture, MAX_PICTURE, &data, &size, &why))
        return bad_pair(p, &p->n->no_file, MODE_E_NOINPUT, picture, why.text, err);
    enum mode_status st;
    const char *ext = extension_of((const uint8_t *)data, size);
    if (!ext)
        st = bad_pair(p, &p->n->not_an_image, MODE_E_FORMAT, picture, "neither JPEG, PNG nor WebP", err);
    else
        st = add_pair(p, (const uint8_t *)data, size, ext, text, text_size, text_ext, err);
    free(data);
    return st;
}

/* One line of the list: the picture is packed with its captions. line is cut up. */
static enum mode_status pack_line(struct packer *p, const char *folder, char *line, const char *what,
                                  struct mode_error *err)
{
    enum mode_status st;
    p->n->pairs++;
    if (!mode_utf8_is_text(line, strlen(line)))
        return bad_pair(p, &p->n->bad_text, MODE_E_FORMAT, what, "the line is not UTF-8", err);
    char *tab = strchr(line, '\t');
    if (!tab || tab[1 + strspn(tab + 1, " \t\r")] == '\0')
        return bad_pair(p, &p->n->no_caption, MODE_E_FORMAT, what, "no tab and caption after the picture", err);
    *tab = '\0';
    char *captions = tab + 1;
    char *path = line[0] == '/' ? mode_xstrdup(line) : mode_path_join(folder, line);
    if (!strchr(captions, '\t'))
        st = pack_one(p, path, captions, strlen(captions), "txt", err);
    else {
        json_t *texts = json_array();
        char *save = NULL;
        for (char *c = strtok_r(captions, "\t", &save); c; c = strtok_r(NULL, "\t", &save))
            json_array_append_new(texts, json_string(c));
        json_t *root = json_pack("{s:o}", "texts", texts);
        char *text = json_dumps(root, JSON_COMPACT);
        st = pack_one(p, path, text, strlen(text), "json", err);
        free(text);
        json_decref(root);
    }
    free(path);
    return st;
}

static enum mode_status pack_list(struct packer *p, const char *list, struct mode_error *err)
{
    FILE *f = fopen(list, "rb");
    if (!f) return MODE_FAIL(err, MODE_E_NOINPUT, "%s: cannot be opened: %s", list, strerror(errno));
    enum mode_status st = MODE_OK;
    char *line = NULL, *folder = mode_xstrdup(list), *slash = strrchr(folder, '/');
    size_t cap = 0;
    if (slash)
        *slash = '\0';
    else
        strcpy(folder, ".");
    uint64_t number = 0;
    for (ssize_t n; !st && (n = getline(&line, &cap, f)) >= 0;) {
        number++;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n == 0 || line[0] == '#') continue;
        char *what = mode_xasprintf("%s, line %llu", list, (unsigned long long)number);
        st = pack_line(p, folder, line, what, err);
        free(what);
    }
    if (!st && ferror(f)) st = MODE_FAIL(err, MODE_E_IO, "%s: reading failed: %s", list, strerror(errno));
    fclose(f);
    free(line);
    free(folder);
    return st;
}

/* The picture at path, with the caption beside it. */
static enum mode_status pack_picture(struct packer *p, const char *path, struct mode_error *err)
{
    static const char *const exts[] = {"txt", "json"};
    const size_t stem = (size_t)(strrchr(path, '.') - path);
    enum mode_status st = MODE_OK;
    char *text = NULL;
    p->n->pairs++;
    for (size_t i = 0; i < 2; i++) {
        size_t size;
        struct mode_error why;
        char *beside = mode_xasprintf("%.*s.%s", (int)stem, path, exts[i]);
        const bool there = mode_file_exists(beside);
        if (there) st = mode_file_read(beside, MAX_TEXT, &text, &size, &why);
        free(beside);
        if (!there) continue;
        if (st)
            st = bad_pair(p, &p->n->bad_text, st, path, why.text, err);
        else if (!mode_utf8_is_text(text, size))
            st = bad_pair(p, &p->n->bad_text, MODE_E_FORMAT, path, "its caption is not UTF-8", err);
        else
            st = pack_one(p, path, text, size, exts[i], err);
        free(text);
        return st;
    }
    return bad_pair(p, &p->n->no_caption, MODE_E_FORMAT, path, "no .txt or .json beside it", err);
}

static bool is_picture_name(const char *name)
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

static enum mode_status pack_folder(struct packer *p, const char *dir, int depth, struct mode_error *err)
{
    struct dirent **list;
    enum mode_status st = MODE_OK;
    if (depth > MAX_DEPTH) return MODE_FAIL(err, MODE_E_VALUE, "%s: folders nested deeper than %d", dir, MAX_DEPTH);
    const int n = scandir(dir, &list, skip_hidden, by_number);
    if (n < 0) return MODE_FAIL(err, MODE_E_NOINPUT, "%s: folder cannot be read: %s", dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        struct stat sb;
        char *path = mode_path_join(dir, list[i]->d_name);
        if (!st && stat(path, &sb) == 0 && S_ISDIR(sb.st_mode))
            st = pack_folder(p, path, depth + 1, err);
        else if (!st && is_picture_name(list[i]->d_name))
            st = pack_picture(p, path, err);
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
    DIR *d = opendir(out);
    if (!d) return MODE_FAIL(err, MODE_E_CREATE, "%s: folder cannot be read: %s", out, strerror(errno));
    for (struct dirent *e; !st && (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        if (n > 4 && strcmp(e->d_name + n - 4, ".tar") == 0)
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: holds %s already; give an empty folder", out, e->d_name);
    }
    closedir(d);
    return st;
}

enum mode_status mode_pack(struct mode_pack_counts *n, const char *pairs, const char *out, uint32_t per_shard,
                           bool skip_bad, struct mode_error *err)
{
    struct packer p = {.n = n, .out = out, .per_shard = per_shard, .skip_bad = skip_bad};
    struct stat sb;
    enum mode_status st;
    *n = (struct mode_pack_counts){0};
    if (stat(pairs, &sb) != 0) return MODE_FAIL(err, MODE_E_NOINPUT, "%s: %s", pairs, strerror(errno));
    if ((st = mode_dir_make(out, err)) || (st = check_no_tars(out, err))) return st;
    st = S_ISDIR(sb.st_mode) ? pack_folder(&p, pairs, 0, err) : pack_list(&p, pairs, err);
    if (!st && p.tar) {
        n->shards++;
        st = mode_tar_writer_finish(&p.tar, err);
    }
    mode_tar_writer_close(&p.tar);
    if (!st && n->pairs == 0) st = MODE_FAIL(err, MODE_E_NOINPUT, "%s: no pictures", pairs);
    return st;
}
