/* train_captions.h - the first step of `mode train`: extracts the pairs of every shard, as `mode captions` does. */
#ifndef MODE_SERVICES_MODE_TRAIN_CAPTIONS_H
#define MODE_SERVICES_MODE_TRAIN_CAPTIONS_H

#include "fates.h"
#include "pipeline/sources.h"
#include "train_folder.h"

/* type has a struct train_captions_options named captions */
struct train_captions_options {
    const char *text_keys, *blur_faces;
    bool skip_bad;
};
#define TRAIN_CAPTIONS_OPTIONS(type)                                                                                   \
    MODE_OPT_STR(type, captions.text_keys, "text-keys", MODE_TEXT_KEYS_DEFAULT, "LIST",                                \
                 "where captions are, in order of preference, separated by \";\""),                                    \
        MODE_OPT_STR(type, captions.blur_faces, "blur-faces", NULL, "json:FIELD",                                      \
                     "where the boxes of faces to blur are: json:face_bbox"),                                          \
        MODE_OPT_FLAG(type, captions.skip_bad, SKIP_BAD_SHARDS, SKIP_BAD_SHARDS_HELP)

/* E_USAGE. Also called before any work, to check the options. */
enum mode_status train_captions_selectors(struct mode_text_keys *keys, struct mode_text_key *blur,
                                          const struct train_captions_options *o, struct mode_error *err);
/* Writes captions.bin of every shard to the folder; with resume existing ones are reused. Of several processes only the
 * first writes them. to [shards->n]: the caller frees the paths in it. */
enum mode_status train_captions_extract(struct mode_stream_shard *to, struct train_folder *folder,
                                        const struct mode_shards *shards, const struct train_captions_options *o,
                                        uint64_t seed, bool resume, bool first, struct mode_error *err);

#endif
