/* table.h - a table that is printed and, where a folder is given, written to a file there: cuda-test and cuda-bench. */
#ifndef MODE_TESTS_CUDA_TABLE_H
#define MODE_TESTS_CUDA_TABLE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

static FILE *table_file;

/* Opens a file in the folder, which is created if missing. NULL: the error was printed. */
static inline FILE *folder_file(const char *folder, const char *name)
{
    char path[4096];
    (void)mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f) perror(path);
    return f;
}

/* folder NULL: print only. */
static inline bool table_open(const char *folder, const char *name)
{
    if (!folder) return true;
    table_file = folder_file(folder, name);
    return table_file != NULL;
}

static inline void table_row(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline void table_row(const char *format, ...)
{
    FILE *to[] = {stdout, table_file};
    for (int i = 0; i < 2; i++) {
        va_list args;
        if (!to[i]) continue;
        va_start(args, format);
        vfprintf(to[i], format, args);
        va_end(args);
        fflush(to[i]);
    }
}

static inline void table_close(void)
{
    if (table_file) fclose(table_file);
}

#endif
