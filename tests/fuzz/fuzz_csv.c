/* Any bytes as a list of pictures and captions: reading terminates; fields are strings within the input; and fields
 * written with quotes are read back as the same fields. The first byte is the separator. */
#include "base/str.h"
#include "data/csv.h"
#include "pipeline/pairs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_record(struct mode_str *to, const struct mode_csv *c)
{
    for (size_t i = 0; i < c->n_fields; i++) {
        if (i) mode_str_add_char(to, c->separator);
        mode_str_add_char(to, '"');
        for (const char *p = c->field[i]; *p; p++) {
            if (*p == '"') mode_str_add_char(to, '"');
            mode_str_add_char(to, *p);
        }
        mode_str_add_char(to, '"');
    }
    mode_str_add_char(to, '\n');
}

static void check_records(const uint8_t *data, size_t size, char separator)
{
    struct mode_str text = {0}, again = {0}, twice = {0};
    struct mode_csv c;
    bool got = true;
    uint64_t records = 0;
    mode_str_add(&text, data, size);
    mode_csv_init(&c, text.data, size, separator, "csv");
    while (mode_csv_next(&c, &got, NULL) == MODE_OK && got) {
        for (size_t i = 0; i < c.n_fields; i++)
            if (c.field[i] < text.data || c.field[i] + strlen(c.field[i]) > text.data + size) abort();
        if (c.n_fields == 0 || c.line == 0) abort();
        write_record(&again, &c);
        records++;
    }
    mode_csv_clear(&c);
    if (again.len) {
        char *copy = mode_xstrdup(again.data);
        mode_csv_init(&c, copy, again.len, separator, "csv");
        while (mode_csv_next(&c, &got, NULL) == MODE_OK && got) {
            write_record(&twice, &c);
            records--;
        }
        if (records || !twice.data || strcmp(again.data, twice.data) != 0) abort();
        mode_csv_clear(&c);
        free(copy);
    }
    mode_str_clear(&text);
    mode_str_clear(&again);
    mode_str_clear(&twice);
}

static void check_pairs(const uint8_t *data, size_t size, char separator)
{
    static int fd = -1;
    static char path[64];
    const struct mode_pairs_options o = {.separator = separator};
    struct mode_pairs l;
    struct mode_pair pair;
    struct mode_error err;
    bool got = true;
    volatile size_t bytes = 0;
    if (fd < 0) {
        fd = memfd_create("list", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
    if (mode_pairs_open(&l, path, &o, &err)) return;
    while (mode_pairs_next(&l, &pair, &got, &err) == MODE_OK && got)
        if (!pair.fault) bytes = bytes + strlen(pair.picture) + strlen(pair.captions);
    mode_pairs_close(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || data[0] == 0 || data[0] >= 0x80 || strchr("\"\r\n", data[0])) return 0;
    check_records(data + 1, size - 1, (char)data[0]);
    check_pairs(data + 1, size - 1, (char)data[0]);
    return 0;
}
