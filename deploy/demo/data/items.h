/* items.h - the pictures of the demo: the source of each, its words, its use, its fate.
 *
 * A source (openclipart.c, emoji.c, ...) adds one item per picture without rendering it; render.c renders, leaks.c
 * merges and drops, write.c writes. Everything is accounted for: what a source skips is tallied with a reason, and an
 * item that is not written has its fate.
 *
 * Threads: a set belongs to one caller; different items may be rendered by different threads. */
#ifndef MODE_DEMO_ITEMS_H
#define MODE_DEMO_ITEMS_H

#include "base/error.h"
#include "base/str.h"
#include "data/words.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, Debian package, licence of the pictures */
#define MODE_DEMO_SOURCE_MAP(X)                                                                                        \
    X(OPENCLIPART, "openclipart", "openclipart-svg", "public domain")                                                  \
    X(NOTO, "noto-emoji", "fonts-noto-color-emoji", "OFL-1.1")                                                         \
    X(PAPIRUS, "papirus", "papirus-icon-theme", "GPL-3 (a part LGPL-3)")                                               \
    X(OXYGEN, "oxygen", "oxygen-icon-theme", "LGPL-3+")                                                                \
    X(BREEZE, "breeze", "breeze-icon-theme", "LGPL-3+, LGPL-2.1+, LGPL-2+, some BSD-3-clause")                         \
    X(GNOME, "gnome", "gnome-icon-theme", "GPL-2+ or GPL-3+")                                                          \
    X(TANGO, "tango", "tango-icon-theme", "public domain")                                                             \
    X(FLAGS, "iso-flags", "iso-flags-png-320x240", "public domain (packaging GPL-2+)")                                 \
    X(TUXPAINT, "tuxpaint", "tuxpaint-stamps-default", "GPL-2")

enum mode_demo_source {
#define X(id, name, package, licence) MODE_DEMO_##id,
    MODE_DEMO_SOURCE_MAP(X)
#undef X
        MODE_DEMO_SOURCES
};
struct mode_demo_source_info {
    const char *name, *package, *licence;
};
extern const struct mode_demo_source_info mode_demo_source_info[MODE_DEMO_SOURCES];

/* name, kind (1 classification, 2 retrieval), fewest pictures a class must have, prompt templates */
#define MODE_DEMO_TASK_MAP(X)                                                                                          \
    X(CLIPART_CATEGORY, "clipart_category", 1, 8, "clip art of {c}\nclip art, {c}\na drawing of {c}\n{c}\n")           \
    X(EMOJI_GROUP, "emoji_group", 1, 3, "{c} emoji\nan emoji of {c}\n{c}\n")                                           \
    X(EMOJI_SUBGROUP, "emoji_subgroup", 1, 3, "{c} emoji\nan emoji, {c}\n{c}\n")                                       \
    X(FLAGS, "flags", 1, 1, "flag of {c}\nthe flag of {c}\nclip art of flag of {c}\n")                                 \
    X(ICON_NAMES, "icon_names", 1, 1, "{c} icon\nicon: {c}\n{c}\n")                                                    \
    X(FOLDER_COLOUR, "folder_colour", 1, 5, "a {c} folder icon\n{c} folder\n")                                         \
    X(FOLDER_KIND, "folder_kind", 1, 4, "a folder icon with a {c} symbol\n{c} folder\n")                               \
    X(CARD_SUIT, "card_suit", 1, 1, "playing card, {c}\na playing card of {c}\n{c}\n")                                 \
    X(CARD_RANK, "card_rank", 1, 1, "playing card, {c}\nplaying card, {c} of a suit\n{c}\n")                           \
    X(STAMPS_CATEGORY, "stamps_category", 1, 7, "{c}\na picture of {c}\nclip art of {c}\n")                            \
    X(STAMPS_ANIMALS, "stamps_animals", 1, 4, "a {c}\na picture of a {c}\nclip art of a {c}, animals\n")               \
    X(STAMPS_FRUIT_VEG, "stamps_fruit_veg", 1, 1, "{c}\na {c}\na picture of a {c}\nclip art of {c}, food\n")           \
    X(RETRIEVAL_STAMPS, "retrieval_stamps", 2, 0, "")                                                                  \
    X(RETRIEVAL_CLIPART, "retrieval_clipart", 2, 0, "")                                                                \
    X(RETRIEVAL_EMOJI, "retrieval_emoji_unseen", 2, 0, "")

enum mode_demo_task {
#define X(id, name, kind, fewest, templates) MODE_DEMO_TASK_##id,
    MODE_DEMO_TASK_MAP(X)
#undef X
        MODE_DEMO_TASKS
};
struct mode_demo_task_info {
    const char *name;
    int kind, fewest;
    const char *templates;
};
extern const struct mode_demo_task_info mode_demo_task_info[MODE_DEMO_TASKS];

/* What became of an item. */
#define MODE_DEMO_FATE_MAP(X)                                                                                          \
    X(KEPT, "kept")                                                                                                    \
    X(NOT_CHOSEN, "left out by the smoke profile")                                                                     \
    X(NO_TASK, "held out, but in no evaluation set")                                                                   \
    X(UNPARSABLE, "does not parse")                                                                                    \
    X(TOO_MANY_PIXELS, "over 40 million pixels")                                                                       \
    X(EMPTY, "nothing drawn")                                                                                          \
    X(FLAT, "almost one colour on white")                                                                              \
    X(TOO_SMALL, "smaller than 32 or narrower than 12 pixels")                                                         \
    X(TOO_LONG, "longer than six times its width")                                                                     \
    X(NO_WORDS, "no caption of 3 characters")                                                                          \
    X(SAME_PICTURE, "same pixels as another, captions joined")                                                         \
    X(LEAK_SIGNATURE, "same signature as a held-out picture")                                                          \
    X(LEAK_NEAR, "nearly the pixels of a held-out picture")                                                            \
    X(CAPTION_TAKEN, "first caption has 12 pictures already")

enum mode_demo_fate {
#define X(id, text) MODE_DEMO_##id,
    MODE_DEMO_FATE_MAP(X)
#undef X
        MODE_DEMO_FATES
};
extern const char *const mode_demo_fate_text[MODE_DEMO_FATES];

/* Series in which near-duplicates on the two sides are the task itself, not a leak: Papirus' folders (only colour or
 * symbol differs, and that is the question) and the flags of countries. */
enum mode_demo_series { MODE_DEMO_SERIES_NONE, MODE_DEMO_SERIES_FOLDER, MODE_DEMO_SERIES_FLAG };

#define MODE_DEMO_THUMB (24 * 24 * 3)
struct mode_demo_signature {
    uint64_t pixels[2];             /* digest of size and pixels: equal = the same picture */
    uint64_t gradient;              /* difference hash, 8 rows of 8 comparisons             */
    uint8_t coarse[4 * 4 * 3];      /* 4x4 RGB, 4 bits a channel                      */
    uint8_t thumb[MODE_DEMO_THUMB]; /* 24x24 RGB                                 */
    int32_t thumb_sum[3];
};

struct mode_demo_item {
    enum mode_demo_source source;
    bool held; /* evaluation only */
    enum mode_demo_series series;
    char *path;          /* file of the picture, or NULL */
    const uint8_t *data; /* the picture's file in memory when path is NULL; lives as long as the set */
    size_t size;
    bool is_svg;
    char *origin;   /* its origin, for people: path inside the package or code points */
    char *category; /* metadata only */
    struct mode_demo_texts texts;
    char *label[MODE_DEMO_TASKS]; /* class in that task; for retrieval any text: a member; NULL: not in it */

    enum mode_demo_fate fate;
    char *detail; /* with UNPARSABLE: what the library said */
    uint8_t *jpeg;
    size_t jpeg_size;
    int width, height;
    struct mode_demo_signature sig;
};

struct mode_demo_tally {
    enum mode_demo_source source;
    const char *reason; /* static */
    int64_t n;
};

struct mode_demo_set {
    int64_t n, cap;
    struct mode_demo_item *items;
    int n_tallies;
    struct mode_demo_tally tallies[64];
    void (*release)(void *); /* frees what items' data points into */
    void *owner;
};

/* A new zeroed item of the set; the pointer is good until the next call. */
struct mode_demo_item *mode_demo_item_add(struct mode_demo_set *set, enum mode_demo_source source);
void mode_demo_item_label(struct mode_demo_item *it, enum mode_demo_task task, const char *label);
/* A source skipped n pictures. */
void mode_demo_tally(struct mode_demo_set *set, enum mode_demo_source source, const char *reason, int64_t n);
void mode_demo_set_clear(struct mode_demo_set *set);

/* All files under dir, sorted by path (bytes); symbolic links are not followed, but listed apart. */
struct mode_demo_files {
    int64_t n, n_links;
    char **path; /* relative to dir */
    char **link;
};
/* MODE_E_NOINPUT with the package's name when dir does not exist. */
enum mode_status mode_demo_files_list(struct mode_demo_files *f, const char *dir, const char *package,
                                      struct mode_error *err);
void mode_demo_files_clear(struct mode_demo_files *f);
/* "a/b/name.svg" -> "name"; the caller frees. */
char *mode_demo_path_stem(const char *path);
/* "a/b/name.svg" -> "a/b"; the caller frees. */
char *mode_demo_path_folder(const char *path);
bool mode_demo_path_ends(const char *path, const char *ending);

/* The sources; root is the folder into which the packages were unpacked. */
enum mode_status mode_demo_openclipart(struct mode_demo_set *set, const char *root, struct mode_error *err);
enum mode_status mode_demo_emoji(struct mode_demo_set *set, const char *root, struct mode_error *err);
enum mode_status mode_demo_icons(struct mode_demo_set *set, const char *root, struct mode_error *err);
enum mode_status mode_demo_flags(struct mode_demo_set *set, const char *root, struct mode_error *err);
enum mode_status mode_demo_tuxpaint(struct mode_demo_set *set, const char *root, struct mode_error *err);

#endif
