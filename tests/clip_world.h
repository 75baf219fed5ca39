/* clip_world.h - a small fixture for tests that train or evaluate: a folder with tars of pictures, their caption files,
 * assignments, centres, a merges file, an evaluation task. Everything is generated, the same every time. */
#ifndef MODE_TESTS_CLIP_WORLD_H
#define MODE_TESTS_CLIP_WORLD_H

#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "cluster/centres.h"
#include "data/captions.h"
#include "data/safetensors.h"
#include "data/tar.h"
#include "ensemble/selection.h"
#include "pipeline/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <spng.h>

enum { WORLD_SHARDS = 3, WORLD_ROWS = 31, WORLD_FINE = 4, WORLD_COARSE = 2, WORLD_DIM = 2 };

/* A model that trains in milliseconds. */
#define WORLD_MODEL                                                                                                    \
    "{\"embed_dim\": 16, \"vision_cfg\": {\"image_size\": 16, \"layers\": 1, \"width\": 32, "                          \
    "\"head_width\": 16, "                                                                                             \
    "\"patch_size\": 8}, \"text_cfg\": {\"context_length\": 16, \"vocab_size\": 49408, \"width\": 32, "                \
    "\"heads\": 2, "                                                                                                   \
    "\"layers\": 1}}"
#define WORLD_PREPROCESS                                                                                               \
    "{\"mean\": [0.48145466, 0.4578275, 0.40821073], \"std\": [0.26862954, 0.26130258, 0.27577711], "                  \
    "\"interpolation\": \"bicubic\", \"resize_mode\": \"shortest\"}"

struct world {
    char dir[64];
    char *merges, *centres;
    char *captions[WORLD_SHARDS], *tar[WORLD_SHARDS], *assign[WORLD_SHARDS];
    int32_t fine[WORLD_SHARDS][WORLD_ROWS];
    struct mode_stream_shard shards[WORLD_SHARDS];
};

static const char *const world_colours[] = {"red", "green", "blue", "white"};

static inline void world_ok(enum mode_status st, const struct mode_error *err)
{
    if (st == MODE_OK) return;
    fprintf(stderr, "clip_world: %s\n", err->text);
    abort();
}

/* A merges file of the right length whose merges join any two characters: a tokenizer without a download. */
static inline void world_write_merges(const char *path)
{
    struct mode_error err = {0};
    struct mode_str s = {0};
    int n = 0;
    mode_str_add_cstr(&s, "#version: test\n");
    for (int a = '!'; a <= 0xff && n < 48894; a++)
        for (int b = '!'; b <= 0xff && n < 48894; b++) {
            if ((a > '~' && a < 0xa1) || a == 0xad || (b > '~' && b < 0xa1) || b == 0xad) continue;
            char x[3] = {0}, y[3] = {0};
            if (a < 0x80)
                x[0] = (char)a;
            else
                x[0] = (char)(0xc0 | a >> 6), x[1] = (char)(0x80 | (a & 0x3f));
            if (b < 0x80)
                y[0] = (char)b;
            else
                y[0] = (char)(0xc0 | b >> 6), y[1] = (char)(0x80 | (b & 0x3f));
            mode_str_printf(&s, "%s %s\n%s %s</w>\n", x, y, x, y);
            n += 2;
        }
    world_ok(mode_file_write_atomic(path, s.data, s.len, &err), &err);
    mode_str_clear(&s);
}

/* A picture of mostly one colour, with noise. *size bytes, the caller frees. */
static inline uint8_t *world_png(int colour, uint64_t number, int side, size_t *size)
{
    uint8_t *rgb = mode_xmalloc((size_t)side * (size_t)side * 3);
    struct mode_rng r = mode_rng_for(17, MODE_RNG_TEST, 1, number);
    for (int i = 0; i < side * side; i++)
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = (uint8_t)(mode_rng_below(&r, 80) + (colour == c || colour == 3 ? 170 : 0));
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr ihdr = {.width = (uint32_t)side, .height = (uint32_t)side, .bit_depth = 8, .color_type = 2};
    int rc = 0;
    spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
    spng_set_ihdr(ctx, &ihdr);
    spng_encode_image(ctx, rgb, (size_t)side * (size_t)side * 3, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    uint8_t *png = spng_get_png_buffer(ctx, size, &rc);
    MODE_ASSERT(png && rc == 0);
    spng_ctx_free(ctx);
    free(rgb);
    return png;
}

static inline void world_write_shard(struct world *w, int s)
{
    struct mode_error err = {0};
    struct mode_tar_writer *tar = NULL;
    struct mode_sample samples[WORLD_ROWS] = {{0}};
    char names[WORLD_ROWS][32], texts[WORLD_ROWS][64], member[40];
    uint32_t rows[WORLD_ROWS];
    float distance[WORLD_ROWS] = {0};
    world_ok(mode_tar_writer_open(&tar, w->tar[s], &err), &err);
    for (int i = 0; i < WORLD_ROWS; i++) {
        int number = s * WORLD_ROWS + i, colour = number * 7 % 4, side = 18 + number % 9;
        size_t size;
        uint8_t *png = world_png(colour, (uint64_t)number, side, &size);
        snprintf(names[i], sizeof names[i], "s%04d", number);
        snprintf(texts[i], sizeof texts[i], "a %s square, number %d", world_colours[colour], number);
        snprintf(member, sizeof member, "s%04d.txt", number);
        world_ok(mode_tar_writer_add(tar, member, texts[i], strlen(texts[i]), &err), &err);
        snprintf(member, sizeof member, "s%04d.png", number);
        world_ok(mode_tar_writer_add(tar, member, png, size, &err), &err);
        free(png);
        samples[i] = (struct mode_sample){.width = (uint32_t)side,
                                          .height = (uint32_t)side,
                                          .caption_count = 1,
                                          .fate = MODE_FATE_KEPT,
                                          .caption = texts[i],
                                          .key = names[i]};
        rows[i] = (uint32_t)i;
        w->fine[s][i] = colour;
    }
    world_ok(mode_tar_writer_finish(&tar, &err), &err);

    struct mode_tar_data data;
    struct mode_tar_member m;
    bool got;
    world_ok(mode_tar_data_open(&data, w->tar[s], &err), &err);
    struct mode_tar walk = mode_tar_walk(&data, w->tar[s]);
    for (int i = 0; mode_tar_next(&walk, &m, &got, &err) == MODE_OK && got; i++) {
        samples[i / 2].image_offset = m.offset; /* text, picture, text, picture, ... */
        samples[i / 2].image_size = m.size;
    }
    char *shard_name = mode_xasprintf("%d.tar", s);
    struct mode_captions c = {.shard_name = shard_name,
                              .shard_size = data.file_size,
                              .data_size = data.size,
                              .n_samples = WORLD_ROWS,
                              .samples = samples,
                              .n_rows = WORLD_ROWS,
                              .rows = rows};
    world_ok(mode_captions_save(&c, w->captions[s], &err), &err);
    mode_tar_clear(&walk);
    mode_tar_data_close(&data);
    free(shard_name);

    char digest[MODE_DIGEST_HEX];
    world_ok(mode_digest_file(w->centres, digest, NULL, &err), &err);
    struct mode_tensor t[] = {mode_tensor_1d(w->fine[s], MODE_DTYPE_I32, WORLD_ROWS),
                              mode_tensor_1d(distance, MODE_DTYPE_F32, WORLD_ROWS)};
    struct mode_meta meta[] = {{(char *)"centres", digest}, {(char *)"encoder_id", (char *)"test"}};
    t[0].name = "fine_id";
    t[1].name = "distance";
    world_ok(mode_safetensors_write(w->assign[s], t, 2, meta, 2, &err), &err);
}

/* fine centres 0 and 3 are group 1, the others group 0 */
static inline void world_write_centres(const char *path)
{
    struct mode_error err = {0};
    float fine[WORLD_FINE * WORLD_DIM] = {1, 0, 0, 1, -1, 0, 0, -1}, coarse[WORLD_COARSE * WORLD_DIM] = {1, 0, 0, 1};
    int32_t fine_to_coarse[WORLD_FINE] = {1, 0, 0, 1};
    int64_t fine_size[WORLD_FINE] = {1, 1, 1, 1};
    struct mode_centres c = {.m = WORLD_FINE,
                             .n = WORLD_COARSE,
                             .d = WORLD_DIM,
                             .fine = fine,
                             .coarse = coarse,
                             .fine_to_coarse = fine_to_coarse,
                             .fine_size = fine_size,
                             .metric = MODE_METRIC_EUCLIDEAN,
                             .seed = 1,
                             .sample_size = 4,
                             .encoder_id = (char *)"test",
                             .certificate = (char *)"{}"};
    world_ok(mode_centres_save(&c, path, &err), &err);
}

/* classnames, one template, 12 pictures; or with captions and dataset_type.txt for retrieval */
static inline char *world_write_task(const struct world *w, bool retrieval)
{
    struct mode_error err = {0};
    struct mode_tar_writer *tar = NULL;
    char *dir = mode_path_join(w->dir, retrieval ? "pairs" : "colours"), *test = mode_path_join(dir, "test");
    char *path = mode_path_join(test, "0.tar"), name[32], text[64];
    static const struct {
        const char *name, *text;
    } classification[] = {{"classnames.txt", "red\ngreen\nblue\nwhite\n"},
                          {"zeroshot_classification_templates.txt", "a {c} square\na picture of {c}\n"},
                          {"test/nshards.txt", "1\n"}},
      pairs[] = {{"dataset_type.txt", "retrieval\n"}, {"test/nshards.txt", "1\n"}, {NULL, NULL}};
    world_ok(mode_dir_make(test, &err), &err);
    for (int i = 0; i < 3; i++) {
        const char *n = retrieval ? pairs[i].name : classification[i].name,
                   *t = retrieval ? pairs[i].text : classification[i].text;
        if (!n) continue;
        char *file = mode_path_join(dir, n);
        world_ok(mode_file_write_atomic(file, t, strlen(t), &err), &err);
        free(file);
    }
    world_ok(mode_tar_writer_open(&tar, path, &err), &err);
    for (int i = 0; i < 12; i++) {
        size_t size;
        uint8_t *png = world_png(i % 4, 1000 + (uint64_t)i, 20, &size);
        if (retrieval)
            snprintf(text, sizeof text, "a %s square\nnumber %d", world_colours[i % 4], i);
        else
            snprintf(text, sizeof text, "%d", i % 4);
        snprintf(name, sizeof name, "s%07d.%s", i, retrieval ? "txt" : "cls");
        world_ok(mode_tar_writer_add(tar, name, text, strlen(text), &err), &err);
        snprintf(name, sizeof name, "s%07d.png", i);
        world_ok(mode_tar_writer_add(tar, name, png, size, &err), &err);
        free(png);
    }
    world_ok(mode_tar_writer_finish(&tar, &err), &err);
    free(test);
    free(path);
    return dir;
}

/* A selection file with these fine centres, as if words had selected them, in the world's folder; the caller frees. */
static inline char *world_selection(const struct world *w, const char *name, const int *fine, int n)
{
    struct mode_error err = {0};
    struct mode_centres c;
    struct mode_selection s;
    char digest[MODE_DIGEST_HEX], *path = mode_path_join(w->dir, name);
    world_ok(mode_centres_load(&c, w->centres, &err), &err);
    world_ok(mode_digest_file(w->centres, digest, NULL, &err), &err);
    mode_selection_init(&s, &c, digest);
    for (int i = 0; i < n; i++) s.chosen[fine[i]] = 1;
    world_ok(mode_selection_save(&s, path, &err), &err);
    mode_selection_clear(&s);
    mode_centres_clear(&c);
    return path;
}

static inline void world_open(struct world *w)
{
    *w = (struct world){.dir = "/tmp/mode-test-XXXXXX"};
    MODE_ASSERT(mkdtemp(w->dir));
    w->merges = mode_path_join(w->dir, "merges.txt");
    w->centres = mode_path_join(w->dir, "centres.safetensors");
    world_write_merges(w->merges);
    world_write_centres(w->centres);
    for (int s = 0; s < WORLD_SHARDS; s++) {
        w->tar[s] = mode_xasprintf("%s/%d.tar", w->dir, s);
        w->captions[s] = mode_xasprintf("%s/%d.captions.bin", w->dir, s);
        w->assign[s] = mode_xasprintf("%s/%d.assign.safetensors", w->dir, s);
        world_write_shard(w, s);
        w->shards[s] = (struct mode_stream_shard){w->captions[s], w->tar[s], w->assign[s]};
    }
}

static inline void world_close(struct world *w)
{
    mode_dir_remove(w->dir, NULL);
    free(w->merges);
    free(w->centres);
    for (int s = 0; s < WORLD_SHARDS; s++) {
        free(w->tar[s]);
        free(w->captions[s]);
        free(w->assign[s]);
    }
}

#endif
