#include "results.h"

#include "base/file.h"
#include "base/str.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COLUMNS 64
#define MAX_WIDTH   60

/* Split one line of CSV at its commas; surrounding quotes are removed. Returns the number of fields. */
static int split(char *line, char *field[MAX_COLUMNS])
{
    int n = 0;
    for (char *at = line; at && n < MAX_COLUMNS; n++) {
        if (*at == '"') {
            field[n] = at + 1;
            char *close = strchr(at + 1, '"');
            if (close) *close = 0;
            at = close ? strchr(close + 1, ',') : NULL;
        } else {
            field[n] = at;
            at = strchr(at, ',');
        }
        if (at) *at++ = 0;
    }
    return n;
}

/* Shortens numbers to four decimals. */
static void shorten(char *out, size_t n, const char *text)
{
    char *end;
    double x = strtod(text, &end);
    if (*text && !*end && strchr(text, '.'))
        snprintf(out, n, "%.4f", x);
    else
        snprintf(out, n, "%.*s", MAX_WIDTH, text);
}

static void print_table(char *text)
{
    struct {
        char *field[MAX_COLUMNS];
        int n;
    } *row = NULL;
    size_t n_rows = 0;
    int width[MAX_COLUMNS] = {0};
    char *save = NULL, cell[MAX_WIDTH + 4];
    for (char *line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
        row = mode_xrealloc(row, (n_rows + 1) * sizeof *row);
        row[n_rows].n = split(line, row[n_rows].field);
        for (int c = 0; c < row[n_rows].n; c++) {
            shorten(cell, sizeof cell, row[n_rows].field[c]);
            if ((int)strlen(cell) > width[c]) width[c] = (int)strlen(cell);
        }
        n_rows++;
    }
    for (size_t r = 0; n_rows > 1 && r < n_rows; r++) { /* a header alone is not a result */
        for (int c = 0; c < row[r].n; c++) {
            shorten(cell, sizeof cell, row[r].field[c]);
            printf(c == 0 ? "%-*s" : "  %*s", width[c], cell);
        }
        putchar('\n');
    }
    free(row);
}

enum mode_status results_print(const char *workspace, struct mode_error *err)
{
    char *csv = mode_xasprintf("%s/report/result.csv", workspace),
         *html = mode_xasprintf("%s/report/report.html", workspace);
    char *text = NULL, real[PATH_MAX];
    size_t size;
    enum mode_status st = mode_file_exists(csv) ? mode_file_read(csv, 16u << 20, &text, &size, err) : MODE_OK;
    if (text) {
        print_table(text);
        printf("\nreport: %s\n", realpath(html, real) ? real : html);
    }
    free(text);
    free(csv);
    free(html);
    return st;
}
