#include "data/weights.h"

#include "base/str.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 1000, MAX_INDEX = 16 << 20 };

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), k = strlen(tail);
    return n >= k && strcmp(text + n - k, tail) == 0;
}

static enum mode_status open_part(struct mode_weights *w, const char *path, struct mode_error *err)
{
    struct mode_mapping map;
    enum mode_status st = mode_file_map(path, &map, err);
    if (st) return st;
    bool is_torch = mode_torch_file_looks(map.data, map.size);
    bool is_tar = map.size > 262 && memcmp(map.data + 257, "ustar", 5) == 0;
    w->bytes += map.size;
    mode_file_unmap(&map);
    if (is_tar)
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: a tar archive, as PyTorch before 0.1.10 wrote it; expected safetensors or torch.save",
                         path);
    w->parts = mode_xrealloc(w->parts, (w->n_parts + 1) * sizeof *w->parts);
    struct mode_weights_part *p = &w->parts[w->n_parts];
    *p = (struct mode_weights_part){.is_torch = is_torch};
    st = is_torch ? mode_torch_file_open(&p->torch, path, err) : mode_safetensors_open(&p->safetensors, path, err);
    if (st) return st;
    w->n_parts++;
    const struct mode_tensor *list = is_torch ? p->torch.tensors : p->safetensors.tensors;
    size_t n = is_torch ? p->torch.n_tensors : p->safetensors.n_tensors;
    w->tensors = mode_xrealloc(w->tensors, (w->n_tensors + n + 1) * sizeof *w->tensors);
    if (n) memcpy(w->tensors + w->n_tensors, list, n * sizeof *list);
    w->n_tensors += n;
    if (is_torch && p->torch.note[0]) memcpy(w->note, p->torch.note, sizeof w->note);
    return MODE_OK;
}

/* {"metadata": ..., "weight_map": {name: file}}. parts: every file once. */
static enum mode_status read_index(json_t **root, struct mode_str *parts, const char *path, struct mode_error *err)
{
    char *text = NULL;
    const char *name;
    json_t *value, *seen = json_object();
    json_error_t why;
    size_t size;
    *root = NULL;
    enum mode_status st = mode_file_read(path, MAX_INDEX, &text, &size, err);
    if (st) goto out;
    *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(json_object_get(*root, "weight_map"))) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: not an index of weights: %s", path,
                       *root ? "\"weight_map\" is missing" : why.text);
        goto out;
    }
    json_object_foreach(json_object_get(*root, "weight_map"), name, value)
    {
        const char *file = json_string_value(value);
        if (!file || !*file || strpbrk(file, "/\n") || file[0] == '.' || json_object_size(seen) > MAX_PARTS) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the file of \"%.100s\" must be a name in the same folder", path,
                           name);
            goto out;
        }
        if (json_object_get(seen, file)) continue;
        json_object_set_new(seen, file, json_true());
        mode_str_printf(parts, "%s\n", file);
    }
out:
    json_decref(seen);
    free(text);
    return st;
}

enum mode_status mode_weights_parts(char **names, const char *path, struct mode_error *err)
{
    struct mode_str parts = {0};
    json_t *root = NULL;
    enum mode_status st = ends_with(path, ".index.json") ? read_index(&root, &parts, path, err) : MODE_OK;
    json_decref(root);
    *names = parts.data ? parts.data : mode_xstrdup("");
    return st;
}

/* Opens every part once; together they must hold exactly the tensors that the index names. */
static enum mode_status open_index(struct mode_weights *w, const char *path, struct mode_error *err)
{
    char *folder = mode_xstrdup(path), *part;
    struct mode_str parts = {0};
    json_t *root;
    *(char *)(uintptr_t)mode_path_base(folder) = 0;
    enum mode_status st = read_index(&root, &parts, path, err);
    for (char *rest = parts.data; !st && (part = strsep(&rest, "\n")) && *part;) {
        char *file = mode_xasprintf("%s%s", folder, part);
        st = open_part(w, file, err);
        free(file);
    }
    json_t *map = json_object_get(root, "weight_map");
    for (size_t i = 0; !st && i < w->n_tensors; i++)
        if (!json_object_get(map, w->tensors[i].name))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: its parts hold %s, which it does not name", path,
                           w->tensors[i].name);
    if (!st && json_object_size(map) != w->n_tensors)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: names %zu tensors, its parts hold %zu", path, json_object_size(map),
                       w->n_tensors);
    json_decref(root);
    mode_str_clear(&parts);
    free(folder);
    return st;
}

enum mode_status mode_weights_open(struct mode_weights *w, const char *path, struct mode_error *err)
{
    *w = (struct mode_weights){0};
    enum mode_status st = ends_with(path, ".index.json") ? open_index(w, path, err) : open_part(w, path, err);
    if (st) mode_weights_close(w);
    return st;
}

void mode_weights_close(struct mode_weights *w)
{
    for (size_t i = 0; i < w->n_parts; i++) {
        if (w->parts[i].is_torch)
            mode_torch_file_close(&w->parts[i].torch);
        else
            mode_safetensors_close(&w->parts[i].safetensors);
    }
    free(w->parts);
    free(w->tensors);
    *w = (struct mode_weights){0};
}

const struct mode_tensor *mode_weights_find(const struct mode_weights *w, const char *name)
{
    for (size_t i = 0; i < w->n_tensors; i++)
        if (strcmp(w->tensors[i].name, name) == 0) return &w->tensors[i];
    return NULL;
}

char *mode_weights_in(const char *dir)
{
    static const char *const names[] = {"open_clip_model.safetensors",
                                        "open_clip_pytorch_model.safetensors",
                                        "open_clip_pytorch_model.bin",
                                        "open_clip_pytorch_model.pth",
                                        "open_clip_pytorch_model.pt",
                                        "open_clip_model.pt",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "pytorch_model.bin",
                                        "pytorch_model.bin.index.json",
                                        "pytorch_model.pt",
                                        "model.pt"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = mode_path_join(dir, names[i]);
        if (mode_file_exists(path)) return path;
        free(path);
    }
    return NULL;
}

enum mode_status mode_weights_digests(struct mode_str *lines, const char *path, struct mode_error *err)
{
    char *dir = mode_path_folder(path), *list = NULL, *part;
    enum mode_status st = mode_digest_line(lines, dir, mode_path_base(path), err);
    if (!st) st = mode_weights_parts(&list, path, err);
    for (char *rest = list; !st && (part = strsep(&rest, "\n")) && *part;) st = mode_digest_line(lines, dir, part, err);
    free(list);
    free(dir);
    return st;
}

const char *mode_weights_bare_name(const char *name)
{
    static const char *const wrappers[] = {"module.", "_orig_mod."};
    for (size_t i = 0; i < 2; i++)
        if (strncmp(name, wrappers[i], strlen(wrappers[i])) == 0)
            return mode_weights_bare_name(name + strlen(wrappers[i]));
    return name;
}
