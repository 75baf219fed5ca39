/* artifacts.h - the artifact store, the single source of truth: a directory of files that are written once and named by
 * digest or task key.
 *
 * A task is done if and only if its commit record exists here. Final names appear only by link(2) of a
 * finished, fsynced temporary, so after any crash a reader sees a complete object or none; at other paths "the file
 * exists" means nothing. The root is the workspace:
 *
 *     store-id                   32 hex digits, drawn when the store was made
 *     blobs/<2 hex>/<digest>     files, named by the SHA-256 of their bytes
 *     tasks/<key>                packed mode.TaskSpec; key = SHA-256 of these bytes
 *     commits/<key>              packed mode.Commit, sealed with its digest: created once, never changed
 *     ckpt/<key>/<fence>/<name>/ checkpoints; <name>.manifest beside the folder makes one complete
 *     epochs/<n>                 one per start of a coordinator
 *     tmp/                       everything unfinished, on the same filesystem
 *     lock                       held shared by every process that has the store open, exclusively by gc.h
 *
 *     struct mode_store *store;
 *     st = mode_store_open(&store, "/data/mode", &err);
 *     st = mode_store_put_blob(store, digest, &size, "/data/mode/tmp/x/feat.safetensors", &err);
 *     st = mode_store_commit_create(store, &created, &winner, &commit, &err);
 *
 * Works on local filesystems and on NFS (the link count settles ambiguous answers). A full disk is MODE_E_IO with an
 * error that says so.
 *
 * Threads: any number may use one store; processes too, on one or many machines. */
#ifndef MODE_STORE_ARTIFACTS_H
#define MODE_STORE_ARTIFACTS_H

#include "base/error.h"
#include "base/file.h"
#include "proto/common.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_store;

#define MODE_STORE_MAX_RECORD ((size_t)128 << 20) /* bytes of a packed task, commit or manifest */

/* Open the store in folder root, making what is missing. Proves that create-once works on this filesystem
 * (MODE_E_CONFIG otherwise). An existing folder with other contents is fine. */
enum mode_status mode_store_open(struct mode_store **out, const char *root, struct mode_error *err);
/* The same with exclusive access, for garbage collection: MODE_E_TEMP when another process has the store open, and for
 * others until it is closed. MODE_E_NOINPUT: no store; MODE_E_CONFIG: the filesystem has no locks. Nothing is written:
 * the disk may be full. */
enum mode_status mode_store_open_alone(struct mode_store **out, const char *root, struct mode_error *err);
/* The same with shared access, for reading only. */
enum mode_status mode_store_open_to_read(struct mode_store **out, const char *root, struct mode_error *err);
void mode_store_close(struct mode_store **store);
const char *mode_store_root(const struct mode_store *store);
/* Identifies the store: 32 hex digits. */
const char *mode_store_id(const struct mode_store *store);
/* <root>/tmp: work files go into a folder of the caller's below it, so that publishing is a link(2). */
const char *mode_store_tmp(const struct mode_store *store);
/* Free bytes of the store's filesystem for this user, and how many it has (may be NULL); 0 if unknown. */
uint64_t mode_store_free_bytes(const struct mode_store *store, uint64_t *size);
/* fn(ctx) is called at least once per 64 MiB read, written or hashed by the functions below, so that a caller can
 * report that it is alive. One per store; set before use. */
void mode_store_on_tick(struct mode_store *store, void (*fn)(void *ctx), void *ctx);

/* Whether key is 64 lower-case hex digits; nothing else may become part of a path. */
bool mode_key_valid(const char *key);

/* ---- blobs ---- */
/* Publish a finished file: digest it, fsync it, link it to blobs/<digest>. The caller's name of the file
 * stays (as one more link when it is on the store's filesystem; otherwise the bytes are copied). After this
 * the file must not be written to. An existing blob of this digest is kept after a check of its size; if its
 * size is wrong (a damaged store) it is replaced. */
enum mode_status mode_store_put_blob(struct mode_store *store, char digest[MODE_DIGEST_HEX], uint64_t *size,
                                     const char *path, struct mode_error *err);
enum mode_status mode_store_put_bytes(struct mode_store *store, char digest[MODE_DIGEST_HEX], const void *data,
                                      size_t size, struct mode_error *err);
/* Path of a blob, malloc'd. MODE_E_NOINPUT if it is missing, MODE_E_FORMAT if its size or bytes do not match.
 * The bytes are digested at the first use in this process (again when inode, size or mtime changed). size 0
 * with digest "" unknown: pass UINT64_MAX to leave the size unchecked. */
enum mode_status mode_store_blob_path(struct mode_store *store, char **path, const char *digest, uint64_t size,
                                      struct mode_error *err);
/* *bad: missing, or its bytes do not match its name; they are digested now, without the cache. */
enum mode_status mode_store_blob_check(struct mode_store *store, bool *bad, const char *digest, uint64_t size,
                                       struct mode_error *err);
/* Removes a bad blob, so that publishing it again stores good bytes. */
enum mode_status mode_store_blob_discard(struct mode_store *store, const char *digest, struct mode_error *err);
/* Whether a file of this name and size exists; its digest is not checked. */
bool mode_store_blob_exists(struct mode_store *store, const char *digest, uint64_t size);

/* ---- tasks ---- */
/* Store the spec; key becomes its name. Storing it again is fine. */
enum mode_status mode_store_task_put(struct mode_store *store, char key[MODE_DIGEST_HEX], const Mode__TaskSpec *spec,
                                     struct mode_error *err);
/* The key alone, without storing. */
void mode_task_key(char key[MODE_DIGEST_HEX], const Mode__TaskSpec *spec);
/* Verified against the key. Free with mode__task_spec__free_unpacked(*spec, NULL). MODE_E_NOINPUT if there is
 * none. */
enum mode_status mode_store_task_get(struct mode_store *store, Mode__TaskSpec **spec, const char *key,
                                     struct mode_error *err);

/* ---- commits ---- */
/* Create the record once. *created: this call created it. *winner (may be NULL): the record that exists now, ours or an
 * earlier one; free with mode__commit__free_unpacked(*winner, NULL). */
enum mode_status mode_store_commit_create(struct mode_store *store, bool *created, Mode__Commit **winner,
                                          const Mode__Commit *commit, struct mode_error *err);
/* MODE_E_NOINPUT if there is none, MODE_E_FORMAT if it is damaged (in records of versions without a seal, only damage
 * that makes it unreadable is detected). */
enum mode_status mode_store_commit_get(struct mode_store *store, Mode__Commit **commit, const char *key,
                                       struct mode_error *err);
bool mode_store_commit_exists(struct mode_store *store, const char *key);
/* Renames a record to *aside (malloc'd), where people can look at it: its task is no longer done. NULL: no record. */
enum mode_status mode_store_commit_aside(struct mode_store *store, char **aside, const char *key,
                                         struct mode_error *err);
/* Call fn for every commit's key, in no particular order, until it returns a status other than MODE_OK. */
enum mode_status mode_store_commit_each(struct mode_store *store,
                                        enum mode_status (*fn)(void *ctx, const char *key, struct mode_error *err),
                                        void *ctx, struct mode_error *err);

/* ---- epochs ---- */
/* Take the next epoch: 1, 2, 3, ...; no two callers ever get the same one. Below 2^31. */
enum mode_status mode_store_epoch_take(struct mode_store *store, uint64_t *epoch, struct mode_error *err);
/* The highest epoch taken so far, 0 = none. */
enum mode_status mode_store_epoch_last(struct mode_store *store, uint64_t *epoch, struct mode_error *err);

/* ---- checkpoints (job.h shows them to the work functions) ---- */
/* <root>/ckpt/<key>/<fence>, made; malloc'd. */
enum mode_status mode_store_checkpoint_dir(struct mode_store *store, char **path, const char *key, uint64_t fence,
                                           struct mode_error *err);
/* Declare sub-folder `name` of that folder complete: its files (no sub-folders) and the folder are fsynced
 * and a manifest with their digests is created once. Then older complete checkpoints of the task but the
 * newest two are removed. */
enum mode_status mode_store_checkpoint_done(struct mode_store *store, const char *key, uint64_t fence, const char *name,
                                            struct mode_error *err);
/* Folder of the newest checkpoint of the task whose manifest exists and whose files match it: highest fence
 * first, then the order of completion. NULL if there is none. malloc'd. Damaged ones are skipped; *damaged counts them
 * (may be NULL). */
enum mode_status mode_store_checkpoint_latest(struct mode_store *store, char **path, const char *key, uint32_t *damaged,
                                              struct mode_error *err);
/* The same for resuming from it as attempt `fence`: *path is a folder of that attempt with the same files, kept until
 * the attempt has made a checkpoint of its own, whatever others remove. */
enum mode_status mode_store_checkpoint_hold(struct mode_store *store, char **path, const char *key, uint64_t fence,
                                            uint32_t *damaged, struct mode_error *err);
/* Remove all checkpoints of a task (it is committed). */
enum mode_status mode_store_checkpoint_remove(struct mode_store *store, const char *key, struct mode_error *err);
/* Remove the checkpoints of committed tasks, and of tasks for which wanted(ctx, key) is false and that have not been
 * written for min_age_s seconds: until then the same work may be requested again. Killed at any instant it leaves
 * complete folders or none, and leftovers in tmp/. *removed: how many tasks' checkpoints. */
enum mode_status mode_store_checkpoint_sweep(struct mode_store *store, uint64_t *removed,
                                             bool (*wanted)(void *ctx, const char *key), void *ctx, uint64_t min_age_s,
                                             struct mode_error *err);

/* ---- upkeep ---- */
/* Removes entries of tmp/ that were not modified for min_age_s seconds and are not in_use(ctx, name) (may be NULL: none
 * is); *removed (may be NULL) counts them. Entries that cannot be removed are skipped; the first of them is the
 * error. */
enum mode_status mode_store_sweep_tmp(struct mode_store *store, uint64_t min_age_s, uint64_t *removed,
                                      bool (*in_use)(void *ctx, const char *name), void *ctx, struct mode_error *err);

#endif
