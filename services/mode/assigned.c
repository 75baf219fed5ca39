#include "assigned.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

enum mode_status assigned_centres(struct mode_centres *centres, const struct run_record *r, struct mode_error *err)
{
    Mode__Commit *commit = NULL;
    char label[64], *path = NULL;
    run_record_centres_label(r, label, sizeof label);
    enum mode_status st = run_record_output(r, &commit, &path, label, "centres.safetensors", err);
    if (!st) st = mode_centres_load(centres, path, err);
    if (commit) mode__commit__free_unpacked(commit, NULL);
    free(path);
    return st;
}

static enum mode_status open_captions(struct assigned *a, const struct run_record *r, size_t shard,
                                      struct mode_error *err)
{
    Mode__Commit *commit = NULL;
    char label[64], *path = NULL;
    snprintf(label, sizeof label, "captions/%04zu", shard);
    enum mode_status st = run_record_output(r, &commit, &path, label, "captions.bin", err);
    if (!st) st = mode_captions_load(&a->captions, path, err);
    if (commit) mode__commit__free_unpacked(commit, NULL);
    free(path);
    return st;
}

static enum mode_status open_assignment(struct assigned *a, const struct run_record *r, size_t shard,
                                        const struct mode_centres *centres, struct mode_error *err)
{
    const int64_t dim[] = {a->captions.n_rows};
    const struct mode_tensor *fine, *distance;
    Mode__Commit *commit = NULL;
    char label[64], *path = NULL;
    snprintf(label, sizeof label, "assign/%04zu", shard);
    enum mode_status st = run_record_output(r, &commit, &path, label, "assign.safetensors", err);
    if (st || (st = mode_safetensors_open(&a->file, path, err)) ||
        (st = mode_safetensors_need(&a->file, "fine_id", MODE_DTYPE_I32, 1, dim, &fine, err)) ||
        (st = mode_safetensors_need(&a->file, "distance", MODE_DTYPE_F32, 1, dim, &distance, err)))
        goto out;
    a->fine = fine->data;
    a->distance = mode_f32(distance);
    for (uint32_t i = 0; !st && i < a->captions.n_rows; i++)
        if (a->fine[i] < 0 || a->fine[i] >= centres->m)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: row %u has fine id %d of %d", label, i, a->fine[i], centres->m);
out:
    if (commit) mode__commit__free_unpacked(commit, NULL);
    free(path);
    return st;
}

enum mode_status assigned_skipped(char **why, const struct run_record *r, size_t shard, struct mode_error *err)
{
    struct assigned a = {0};
    enum mode_status st = open_captions(&a, r, shard, err);
    *why = !st && a.captions.bad ? mode_xstrdup(a.captions.bad) : NULL;
    assigned_close(&a);
    return st;
}

enum mode_status assigned_open(struct assigned *a, const struct run_record *r, size_t shard,
                               const struct mode_centres *centres, struct mode_error *err)
{
    *a = (struct assigned){0};
    enum mode_status st = open_captions(a, r, shard, err);
    return st ? st : open_assignment(a, r, shard, centres, err);
}

void assigned_close(struct assigned *a)
{
    mode_safetensors_close(&a->file);
    mode_captions_clear(&a->captions);
    *a = (struct assigned){0};
}
