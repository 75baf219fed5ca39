/* Any bytes as the files of a downloaded folder: an encoder's config, modules and pooling, the index of a sharded
 * checkpoint, or an evaluation task: its kind, templates, class names and tar, separated by MARK. The first byte
 * chooses which. */
#include "base/file.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/weights.h"
#include "models/bert_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char MARK[] = "|MODE|";
static char root[] = "/tmp/mode-fuzz-XXXXXX";

static void end(void)
{
    mode_dir_remove(root, NULL);
}

static void put(const char *name, const void *data, size_t size)
{
    char *path = mode_path_join(root, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
    free(path);
}

static void drop(const char *name)
{
    char *path = mode_path_join(root, name);
    remove(path);
    free(path);
}

static void start(void)
{
    static const char *const folders[] = {"test", "1_Pooling"};
    if (!mkdtemp(root)) abort();
    atexit(end);
    for (size_t i = 0; i < 2; i++) {
        char *path = mode_path_join(root, folders[i]);
        if (mode_dir_make(path, NULL)) abort();
        free(path);
    }
    put("test/nshards.txt", "1\n", 2);
}

static void check_config(const uint8_t *data, size_t size)
{
    struct mode__bert_config c;
    struct mode_error err = {0};
    put("config.json", data, size);
    if (mode__bert_config_load(&c, root, &err)) {
        if (!err.text[0]) abort();
    } else if (c.layers < 1 || c.heads < 1 || c.width < 1 || c.width % c.heads != 0 || c.vocab < 1 || c.positions < 1 ||
               c.types < 1 || !(c.eps > 0)) {
        abort();
    }
}

static void check_pooling(const char *name, const uint8_t *data, size_t size)
{
    const struct mode__bert_config c = {.positions = 512};
    struct mode_error err = {0};
    enum mode__pooling p;
    int n;
    put(name, data, size);
    if (mode__bert_choose(&p, &n, &c, root, NULL, 0, &err)) {
        if (!err.text[0]) abort();
    } else if (!mode__pooling_name(p) || n < 1 || n > c.positions) {
        abort();
    }
    drop(name);
}

static void check_index(const uint8_t *data, size_t size)
{
    struct mode_weights w;
    struct mode_error err = {0};
    char *path = mode_path_join(root, "model.index.json"), *parts;
    put("model.index.json", data, size);
    if (mode_weights_parts(&parts, path, &err)) {
        if (!err.text[0]) abort();
    } else if (strchr(parts, '/') || parts[0] == '.' || strstr(parts, "\n.")) { /* they must be in the same folder */
        abort();
    }
    free(parts);
    if (mode_weights_open(&w, path, &err) == MODE_OK) mode_weights_close(&w);
    free(path);
}

static void check_task(const uint8_t *data, size_t size)
{
    static const char *const files[] = {"dataset_type.txt", "zeroshot_classification_templates.txt", "classnames.txt"};
    struct mode_evalset e;
    struct mode_error err = {0};
    char hex[MODE_DIGEST_HEX];
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *mark = memmem(data, size, MARK, sizeof MARK - 1);
        const size_t n = mark ? (size_t)(mark - data) : size, skip = mark ? n + sizeof MARK - 1 : n;
        put(files[i], data, n);
        data += skip;
        size -= skip;
    }
    put("test/0.tar", data, size);
    if (mode_evalset_open(&e, root, &err)) {
        if (!err.text[0]) abort();
    } else {
        volatile size_t sum = 0;
        for (int i = 0; i < e.n_images; i++) {
            sum = sum + e.image[i][0] + strlen(e.image_key[i]);
            if (e.kind == MODE_TASK_CLASSIFICATION && (e.label[i] < 0 || e.label[i] >= e.n_classes)) abort();
        }
        for (int c = 0; c < e.n_classes; c++)
            for (int k = 0; k < mode_evalset_n_prompts(&e, c); k++) free(mode_evalset_prompt(&e, k, c));
        mode_evalset_close(&e);
    }
    (void)mode_evalset_words_digest(root, hex, &err);
    for (size_t i = 0; i < 3; i++) drop(files[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    if (!started) start();
    started = true;
    if (size == 0) return 0;
    switch (data[0] % 6) {
    case 0: check_config(data + 1, size - 1); break;
    case 1: check_pooling("1_Pooling/config.json", data + 1, size - 1); break;
    case 2: check_pooling("modules.json", data + 1, size - 1); break;
    case 3: check_pooling("sentence_bert_config.json", data + 1, size - 1); break;
    case 4: check_index(data + 1, size - 1); break;
    default: check_task(data + 1, size - 1); break;
    }
    return 0;
}
