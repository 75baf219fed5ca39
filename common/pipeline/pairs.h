/* pairs.h - reads a list of pictures and captions, pair by pair.
 *
 * Plain: one pair per line, "picture<TAB>caption[<TAB>caption...]", without quoting; "#" begins a comment line.
 * CSV (data/csv.h), if the first line that is not a comment is a header with the columns of picture and caption, or if
 * the separator is not a tab and there are two columns; other columns are ignored. A byte order mark is skipped.
 *
 * An invalid list is MODE_E_FORMAT with its name and line: a header with only one of the two columns or one of them
 * twice, options that do not match the first line, and whatever csv.h refuses.
 *
 * Source:  open_clip's --train-data CSV.
 * Threads: one list belongs to one caller. */
#ifndef MODE_PIPELINE_PAIRS_H
#define MODE_PIPELINE_PAIRS_H

#include "data/csv.h"

#define MODE_PAIRS_IMG_KEY     "filepath"
#define MODE_PAIRS_CAPTION_KEY "title"

/* open_clip's --csv-img-key, --csv-caption-key, --csv-separator; NULL, NULL and 0: its defaults (the separator is a
 * tab). */
struct mode_pairs_options {
    const char *img_key, *caption_key;
    char separator;
};

enum mode_pair_fault { MODE_PAIR_WELL, MODE_PAIR_NO_CAPTION, MODE_PAIR_BAD_TEXT };

struct mode_pair {
    uint64_t line;
    enum mode_pair_fault fault; /* unless WELL, the following fields are undefined */
    const char *picture;        /* path as in the list */
    char *captions;             /* one; if `many`, several, separated by tabs */
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
/* The same in two steps, for a caller that must look at the text first: a pipe can be read only once. text [size] is
 * malloc'd and NUL-terminated, and is freed by the second step or by closing. */
enum mode_status mode_pairs_read(char **text, size_t *size, const char *list, struct mode_error *err);
enum mode_status mode_pairs_take(struct mode_pairs *l, char *text, size_t size, const char *list,
                                 const struct mode_pairs_options *o, struct mode_error *err);
/* *got false: end of the list. A pair with a fault is MODE_OK, and err describes the fault. Strings of pair are valid
 * until the next call. */
enum mode_status mode_pairs_next(struct mode_pairs *l, struct mode_pair *pair, bool *got, struct mode_error *err);
void mode_pairs_close(struct mode_pairs *l);

#endif
