/* Any bytes as a text for every tokenizer, and as the files that a tokenizer is loaded from: nothing may crash, ids
 * must be in range. Needs CLIP's merges: MODE_CLIP_MERGES. The first byte chooses which. */
#include "base/file.h"
#include "data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_IDS = 77 };

static struct mode_tokenizer *openai, *hf, *bert;
static char dir[] = "/tmp/mode-fuzz-XXXXXX";
static char *vocab_txt, *tokenizer_json;

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

static void remove_dir(void)
{
    mode_dir_remove(dir, NULL);
}

static void start(void)
{
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\nb\n##b\nc\n##c\n\xc3\xa9\n##\xc3\xa9\n.\n";
    struct mode_error err;
    const char *merges = getenv("MODE_CLIP_MERGES");
    if (!merges || mode_tokenizer_open_clip(&openai, merges, MODE_CLIP_CLEAN_OPENAI, &err) ||
        mode_tokenizer_open_clip(&hf, merges, MODE_CLIP_CLEAN_HF, &err)) {
        fprintf(stderr, "fuzz_tokenizer: MODE_CLIP_MERGES must name CLIP's merges file: %s\n", merges ? err.text : "");
        exit(66);
    }
    if (!mkdtemp(dir)) abort();
    atexit(remove_dir);
    vocab_txt = mode_path_join(dir, "vocab.txt");
    tokenizer_json = mode_path_join(dir, "tokenizer.json");
    write_file(vocab_txt, vocab, sizeof vocab - 1);
    if (mode_tokenizer_open_bert(&bert, dir, &err)) abort();
}

static void encode(const struct mode_tokenizer *t, const uint8_t *data, size_t size)
{
    int32_t ids[MAX_IDS];
    int n = mode_tokenizer_encode(t, (const char *)data, size, ids, MAX_IDS);
    if (n < 2 || n > MAX_IDS) abort();
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= mode_tokenizer_vocab_size(t)) abort();
}

static void open_and_encode(const char *path, const uint8_t *data, size_t size)
{
    struct mode_tokenizer *t;
    write_file(path, data, size);
    if (mode_tokenizer_open_bert(&t, dir, NULL) == MODE_OK) {
        encode(t, data, size);
        mode_tokenizer_close(&t);
    }
    if (unlink(path) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!openai) start();
    if (size == 0) return 0;
    switch (data[0] % 8) {
    case 0: open_and_encode(tokenizer_json, data + 1, size - 1); break;
    case 1: open_and_encode(vocab_txt, data + 1, size - 1); break;
    case 2: encode(hf, data + 1, size - 1); break;
    case 3: encode(bert, data + 1, size - 1); break;
    default: encode(openai, data + 1, size - 1); break;
    }
    return 0;
}
