/* samples.h - the members of a shard, grouped into samples by webdataset's rules.
 *
 * Key = folder part and base name up to its first dot; extension = the rest, lower-cased. A sample is a
 * maximal run of consecutive members with one key. An extension that repeats within a run begins a new sample
 * (counted); a key that reappears later in the shard is marked. Nothing is dropped without being counted.
 *
 * Source:  webdataset's base_plus_ext and group_by_keys as documented; open_clip's treatment of repeated
 * extensions. Threads: a list is read-only once made. */
#ifndef MODE_DATA_SAMPLES_H
#define MODE_DATA_SAMPLES_H

#include "data/tar.h"

/* Members which are part of no sample, by reason. */
#define MODE_IGNORED_MAP(X)                                                                                            \
    X(LINK, "link")                                                                                                    \
    X(DEVICE, "device")                                                                                                \
    X(SPARSE, "sparse")                                                                                                \
    X(OTHER, "other_type")   /* unknown type, or a name too long or not readable   */                                  \
    X(UNSAFE, "unsafe_name") /* absolute, or with a ".." component                */                                   \
    X(META, "meta")          /* __x__ or below it                                          */                          \
    X(HIDDEN, "hidden")      /* base name begins with a dot                            */                              \
    X(NO_EXTENSION, "no_extension")

enum mode_ignored {
#define X(name, text) MODE_IGNORED_##name,
    MODE_IGNORED_MAP(X)
#undef X
        MODE_IGNORED_COUNT
};
const char *mode_ignored_name(enum mode_ignored i);

struct mode_member {
    char *ext;             /* lower-case, never empty */
    uint64_t offset, size; /* of the data, bytes in the tar */
    bool whole;
};

struct mode_group {
    char *key;       /* bytes as stored */
    uint64_t header; /* byte position of its first member's header */
    size_t first, n; /* its members: list->members[first .. first + n) */
    bool again;      /* the key was seen in an earlier run of this shard */
    bool cut;        /* one of its members is incomplete */
};

struct mode_sample_list {
    size_t n_groups, n_members;
    struct mode_group *groups;
    struct mode_member *members;
    uint64_t ignored[MODE_IGNORED_COUNT];
    uint64_t n_folders;      /* folder entries: normal, not counted as ignored */
    uint64_t duplicate_ext;  /* samples begun by a repeated extension          */
    uint64_t non_contiguous; /* samples marked `again`                         */
    bool cut;                /* the tar is truncated                           */
    uint64_t cut_at, after;  /* as struct mode_tar                             */
};

/* Errors: those of mode_tar_next. */
enum mode_status mode_samples_list(struct mode_sample_list *s, const struct mode_tar_data *d, const char *path,
                                   struct mode_error *err);
void mode_sample_list_clear(struct mode_sample_list *s);
uint64_t mode_sample_list_ignored(const struct mode_sample_list *s); /* sum */

/* Member of a group by extension, NULL when it has none. */
const struct mode_member *mode_group_member(const struct mode_sample_list *s, const struct mode_group *g,
                                            const char *ext);
/* The group's picture: jpg, png, jpeg, webp, in this order. */
const struct mode_member *mode_group_image(const struct mode_sample_list *s, const struct mode_group *g);

#endif
