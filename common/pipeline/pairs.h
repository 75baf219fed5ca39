/* pairs.h - a list of pictures and captions, pair by pair.
 *
 * Plain: one pair a line, "picture<TAB>caption[<TAB>caption...]", every letter as it stands; "#" begins a comment line.
 * CSV (data/csv.h): the first line that is no comment is a header that has the picture's and the caption's column, or
 * the separator is not a tab and there are two columns; other columns are left aside. A byte order mark is skipped.
 *
 * A list that cannot be understood is MODE_E_FORMAT with its name and line: a header with one of the two columns or
 * both twice, options that its first line does not fit, and what csv.h refuses.
 *
 * Threads: one list belongs to one caller. */
#ifndef MODE_PIPELINE_PAIRS_H
#define MODE_PIPELINE_PAIRS_H

#include "data/csv.h"

#define MODE_PAIRS_IMG_KEY     "filepath"
#define MODE_PAIRS_CAPTION_KEY "title"

/* open_clip's --csv-img-key, --csv-caption-key, --csv-separator; NULL, NULL and 0 are its defaults, the tab among them.
 */
struct mode_pairs_options {
    const char *img_key, *caption_key;
    char separator;
};

enum mode_pair_fault { MODE_PAIR_WELL, MODE_PAIR_NO_CAPTION, MODE_PAIR_BAD_TEXT };

struct mode_pair {
    uint64_t line;
    enum mode_pair_fault fault; /* the rest is not to be used then */
    const char *picture;        /* as the list has it */
    char *captions;             /* one; with many several, tabs between them */
    bool many;
};

struct mode_pairs {
    const char *name;
    struct mode_pairs_options o;
    char *text, *at, *end;
    uint64_t line;
    bool is_csv, has_header;
    size_t n_columns, picture, caption; /* of the CSV's columns */
    struct mode_csv csv;
};

enum mode_status mode_pairs_open(struct mode_pairs *l, const char *list, const struct mode_pairs_options *o,
                                 struct mode_error *err);
/* *got false: that was all. A pair with a fault is MODE_OK, and err says what is wrong with it. What pair points to
 * lives until the next call. */
enum mode_status mode_pairs_next(struct mode_pairs *l, struct mode_pair *pair, bool *got, struct mode_error *err);
void mode_pairs_close(struct mode_pairs *l);

#endif
