/* plan_world.h - a mock of the planner's environment: encoders and evaluation tasks are derived from their paths, so no
 * model is needed. For tests of the coordinator. */
#ifndef MODE_TESTS_PLAN_WORLD_H
#define MODE_TESTS_PLAN_WORLD_H

#include "base/str.h"
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static inline enum mode_status fake_encoder(char **id, struct digests *d, struct mode_spec *spec,
                                            struct mode_error *err)
{
    (void)d;
    (void)err;
    *id = mode_xasprintf("bert:%s", spec->encoder.pooling);
    return MODE_OK;
}

static inline enum mode_status fake_digest(char hex[DIGESTS_VALUE], struct digests *d, const char *dir,
                                           struct mode_error *err)
{
    (void)d;
    (void)err;
    mode_digest_bytes(dir, strlen(dir), hex);
    return MODE_OK;
}

static inline enum mode_status fake_ids(int64_t *n, const char *merges, struct mode_error *err)
{
    (void)merges;
    (void)err;
    *n = 49408;
    return MODE_OK;
}

/* A model's file contains its number of trained steps. */
static inline enum mode_status fake_init(char hex[DIGESTS_VALUE], uint64_t *step, struct digests *d,
                                         const struct mode_spec *spec, struct mode_error *err)
{
    (void)d;
    char *text = NULL;
    enum mode_status st = mode_file_read(spec->train.init, 0, &text, NULL, err);
    if (!st) st = mode_digest_file(spec->train.init, hex, NULL, err);
    *step = text ? strtoull(text, NULL, 10) : 0;
    free(text);
    return st;
}

static const struct plan_world fake_world = {fake_encoder, fake_digest, fake_digest, fake_ids, fake_init};

/* Writes folder/name, creating its folders. */
static inline enum mode_status put_file_in(const char *folder, const char *name, const char *text)
{
    struct mode_error err = {0};
    char *path = mode_path_join(folder, name), *dir = mode_path_folder(path);
    enum mode_status st = mode_dir_make(dir, &err);
    if (!st) st = mode_file_write_atomic(path, text, strlen(text), &err);
    free(path);
    free(dir);
    return st;
}

#endif
