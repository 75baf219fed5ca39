/* Any bytes as the records of a store and of a run's folder: a commit record, as it is and with the correct digest at
 * its end, a task record, a checkpoint's manifest, the inputs that a run was planned from. The first byte chooses
 * which. */
#include "base/str.h"
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char key[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static struct mode_store *store;
static char root[] = "/tmp/mode-fuzz-XXXXXX";

static void end(void)
{
    mode_store_close(&store);
    mode_dir_remove(root, NULL);
}

static char *place(const char *below)
{
    return mode_path_join(root, below);
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

static void start(void)
{
    struct mode_error err;
    char *folder;
    if (!mkdtemp(root) || mode_store_open(&store, root, &err)) abort();
    atexit(end);
    char *below = mode_xasprintf("ckpt/%s/0000000100000001/s", key);
    folder = place(below);
    if (mode_dir_make(folder, &err)) abort();
    char *file = mode_path_join(folder, "weights");
    write_file(file, "w", 1);
    free(file);
    free(folder);
    free(below);
}

static void touch(const Mode__Commit *c)
{
    volatile size_t sum = strlen(c->key);
    for (size_t i = 0; i < c->n_outputs; i++) sum = sum + strlen(c->outputs[i]->name) + strlen(c->outputs[i]->digest);
    if (c->note) sum = sum + strlen(c->note);
}

static void check_commit(const uint8_t *data, size_t size, bool seal)
{
    static const uint8_t head[] = {15 << 3, 1}, tag[] = {14 << 3 | 2, 64};
    struct mode_str all = {0};
    struct mode_error err = {0};
    Mode__Commit *c;
    if (seal) mode_str_add(&all, head, sizeof head);
    mode_str_add(&all, data, size);
    if (seal) {
        char digest[MODE_DIGEST_HEX];
        mode_digest_bytes(all.data, all.len, digest);
        mode_str_add(&all, tag, sizeof tag);
        mode_str_add(&all, digest, 64);
    }
    char *below = mode_xasprintf("commits/%s", key), *path = place(below);
    write_file(path, all.data, all.len);
    if (mode_store_commit_get(store, &c, key, &err)) {
        if (!err.text[0] || c) abort();
    } else {
        if (strcmp(c->key, key) != 0) abort();
        touch(c);
        mode__commit__free_unpacked(c, NULL);
    }
    free(path);
    free(below);
    mode_str_clear(&all);
}

static void check_task(const uint8_t *data, size_t size)
{
    char digest[MODE_DIGEST_HEX];
    struct mode_error err = {0};
    Mode__TaskSpec *spec;
    mode_digest_bytes(data, size, digest);
    char *below = mode_xasprintf("tasks/%s", digest), *path = place(below);
    write_file(path, data, size);
    if (mode_store_task_get(store, &spec, digest, &err)) {
        if (!err.text[0] || spec) abort();
    } else {
        volatile size_t sum = strlen(spec->service);
        for (size_t i = 0; i < spec->n_inputs; i++) sum = sum + strlen(spec->inputs[i]->name);
        mode__task_spec__free_unpacked(spec, NULL);
    }
    remove(path);
    free(path);
    free(below);
}

static void check_checkpoint(const uint8_t *data, size_t size)
{
    struct mode_error err = {0};
    uint32_t damaged;
    char *folder, *below = mode_xasprintf("ckpt/%s/0000000100000001/s.manifest", key), *path = place(below);
    write_file(path, data, size);
    if (mode_store_checkpoint_latest(store, &folder, key, &damaged, &err)) abort();
    free(folder);
    free(path);
    free(below);
}

static void check_inputs(const uint8_t *data, size_t size)
{
    static const char text[] = "name: a\ndata: {train: [x], added: [y]}\nencoder: {dir: e}\nmodel: ViT-B-32\n"
                               "tokenizer: {merges: m}\n";
    struct plan p = {0};
    struct mode_error err = {0};
    char *path = place("inputs.json"), digest[MODE_DIGEST_HEX], *all, *mark;
    if (mode_spec_parse(&p.spec, text, "/nowhere", "spec", &err)) abort();
    /* "SPEC" is replaced by the digest of the spec */
    mode_digest_bytes(p.spec.text, strlen(p.spec.text), digest);
    all = strndup((const char *)data, size);
    mark = all ? strstr(all, "SPEC") : NULL;
    struct mode_str out = {0};
    if (mark) {
        mode_str_add(&out, all, (size_t)(mark - all));
        mode_str_add(&out, digest, 64);
        mode_str_add_cstr(&out, mark + 4);
    } else {
        mode_str_add(&out, data, size);
    }
    write_file(path, out.data, out.len);
    if (mode_file_exists(path) && plan_inputs_load(&p, path, &err)) {
        if (!err.text[0]) abort();
    } else {
        volatile uint64_t sum = 0;
        for (size_t i = 0; i < p.shards.n; i++) sum = sum + strlen(p.shards.shard[i].name) + p.shards.shard[i].size;
        for (uint32_t t = 0; t < p.n_tasks; t++) sum = sum + strlen(p.task[t].name) + strlen(p.task[t].kind);
        if (p.shards.n != p.shard_end[p.n_added]) abort();
        plan_inputs_forget(&p);
        free(p.encoder_id);
        free(p.algorithms);
    }
    mode_spec_clear(&p.spec);
    mode_str_clear(&out);
    free(all);
    free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!store) start();
    if (size == 0) return 0;
    switch (data[0] % 5) {
    case 0: check_commit(data + 1, size - 1, false); break;
    case 1: check_commit(data + 1, size - 1, true); break;
    case 2: check_task(data + 1, size - 1); break;
    case 3: check_checkpoint(data + 1, size - 1); break;
    default: check_inputs(data + 1, size - 1); break;
    }
    return 0;
}
