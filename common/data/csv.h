/* csv.h - reads the records of a CSV file (RFC 4180) one by one.
 *
 *     struct mode_csv c;
 *     mode_csv_init(&c, text, size, ',', "list.csv");
 *     while (!(st = mode_csv_next(&c, &got, &err)) && got) use(c.field, c.n_fields);
 *     mode_csv_clear(&c);
 *
 * A quoted field may contain the separator, line breaks and doubled quotes; a quote inside an unquoted field is an
 * ordinary character. Lines end with LF or CR LF, optional on the last; empty lines are skipped. Malformed input is
 * MODE_E_FORMAT with name and line: text after a closing quote, a quote that is never closed, a NUL. A byte order mark
 * is not skipped.
 *
 * Threads: one reader belongs to one caller. */
#ifndef MODE_DATA_CSV_H
#define MODE_DATA_CSV_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_csv {
    char **field; /* of the record, borrowed from the text, NUL-terminated */
    size_t n_fields, cap;
    uint64_t line; /* where the record begins, from 1 */
    char *at, *end;
    uint64_t next_line;
    char separator;
    const char *name;
};

/* text [size], followed by one writable byte, is modified in place; name: the file's name for errors. */
void mode_csv_init(struct mode_csv *c, char *text, size_t size, char separator, const char *name);
enum mode_status mode_csv_next(struct mode_csv *c, bool *got, struct mode_error *err);
void mode_csv_clear(struct mode_csv *c);

#endif
