/* caption_text.h - where a sample's captions are, and which one is used.
 *
 * A selector is an extension, or "<extension>:<field>" for a string in a JSON object, or
 * "<extension>:<field>[]" for a list of strings: "txt", "json:caption", "json:texts[]". Entries of a list may
 * be [source, caption] pairs, as in MetaCLIP's shards: the caption is taken. The first selector that gives a
 * usable caption is used; of its usable candidates one is drawn uniformly.
 *
 * Usable: UTF-8 without NUL; after stripping white space, neither empty nor a single double quote. JSON: at most 1 MiB,
 * at most 32 levels, no repeated names; NaN and Infinity (which Python writes) are read as empty strings.
 *
 * Threads: pure. */
#ifndef MODE_DATA_CAPTION_TEXT_H
#define MODE_DATA_CAPTION_TEXT_H

#include "base/rng.h"
#include "data/captions.h"
#include "data/samples.h"

enum { MODE_TEXT_KEYS_MAX = 8, MODE_TEXT_MAX_BYTES = 1 << 20 };

struct mode_text_keys {
    int n;
    struct mode_text_key {
        char ext[32];   /* lower-case            */
        char field[64]; /* "" = the member itself */
        bool list;
    } key[MODE_TEXT_KEYS_MAX];
};

#define MODE_TEXT_KEYS_DEFAULT "txt;json:caption;json:texts[]"

/* Each of texts is one selector or several joined by ';'. n == 0: the default. MODE_E_VALUE names the bad
 * one. A field's name has no ',' and no ';'. */
enum mode_status mode_text_keys_parse(struct mode_text_keys *keys, const char *const *texts, size_t n,
                                      struct mode_error *err);

/* A selector of one JSON field, "json:face_bbox". MODE_E_VALUE. */
enum mode_status mode_face_key_parse(struct mode_text_key *key, const char *text, struct mode_error *err);

/* One candidate; when a whole list is taken, also the unusable ones, each with its own fate. */
struct mode_text {
    enum mode_fate fate; /* KEPT, EMPTY_CAPTION, BAD_JSON, BAD_TEXT */
    uint32_t index;      /* in its list                             */
    char *caption;       /* owned; NULL unless KEPT                 */
};

struct mode_text_choice {
    enum mode_fate fate; /* KEPT, NO_CAPTION, EMPTY_CAPTION, BAD_JSON, BAD_TEXT: the first reason */
    uint32_t count;      /* length of the list, including unusable entries                            */
    uint32_t n;          /* KEPT: number of candidates taken, 1 unless `all`; else 0                  */
    struct mode_text *texts;
    char why[120]; /* an error text for people unless KEPT                                      */
};
/* all: take every candidate of the list instead of drawing one. */
void mode_text_choose(struct mode_text_choice *out, const struct mode_text_keys *keys, const uint8_t *tar,
                      const struct mode_sample_list *s, const struct mode_group *g, bool all, struct mode_rng rng);
void mode_text_choice_clear(struct mode_text_choice *c);

#endif
