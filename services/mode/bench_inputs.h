/* bench_inputs.h - inputs of the subjects encode, embed, kmeans and train, and alternation with a peer. */
#ifndef MODE_SERVICES_MODE_BENCH_INPUTS_H
#define MODE_SERVICES_MODE_BENCH_INPUTS_H

#include "base/error.h"
#include "base/options.h"
#include "ranges.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* type has a bool turns and a double seconds */
#define BENCH_TURNS_OPTIONS(type)                                                                                      \
    MODE_OPT_FLAG(type, turns, "turns",                                                                                \
                  "wait for a line on stdin before every round: bench/peers/ alternates this way"),                    \
        MODE_OPT_REAL(type, seconds, "seconds", "0", "S",                                                              \
                      "repeat the work in a round until this many seconds have passed")
#define BENCH_ROUNDS_OPTION(type, field)                                                                               \
    MODE_OPT_INT(type, field, "rounds", "5", "N", "rounds, after a warm-up that is not counted")

extern const struct option_range bench_ranges[];       /* of --rounds */
extern const struct option_range bench_turns_ranges[]; /* of --rounds and --seconds */

/* Before a round: waits for a line on stdin. False: end of stdin, no more rounds. */
bool bench_turn(bool turns);

struct bench_lines {
    char *data, **line; /* lines end in NUL */
    size_t n;
};
enum mode_status bench_lines_read(struct bench_lines *lines, const char *path, struct mode_error *err);
void bench_lines_clear(struct bench_lines *lines);

struct bench_texts { /* concatenated texts, n_ids[i] tokens each */
    int32_t *ids, *n_ids;
    int64_t n, tokens;
};
/* Every line of a file through CLIP's tokenizer. merges NULL: the downloaded file. */
enum mode_status bench_texts_read(struct bench_texts *texts, const char *path, const char *merges, int64_t context,
                                  struct mode_error *err);
void bench_texts_clear(struct bench_texts *texts);

struct bench_floats {
    float *data; /* [n, each] */
    int64_t n;
};
/* A file of raw little-endian float32, `each` of them per item. */
enum mode_status bench_floats_read(struct bench_floats *f, const char *path, int64_t each, struct mode_error *err);
void bench_floats_clear(struct bench_floats *f);

struct mode_clip;
struct mode_backend;
/* Checks that exactly one of the two is given, and that the name is known. E_USAGE. */
enum mode_status bench_model_check(const char *model, const char *config, struct mode_error *err);
/* --model DIR, or --config NAME (one of open_clip's plain ViTs) with random weights. */
enum mode_status bench_clip_open(struct mode_clip **clip, struct mode_backend *be, const char *model,
                                 const char *config, struct mode_error *err);
int64_t bench_picture_floats(const struct mode_clip *clip); /* 3 S S */

#endif
