/* error.h - how functions report failure.
 *
 * Three kinds of failure, three treatments: a bug of ours stops the process (MODE_ASSERT); a failure of the
 * environment, or invalid data from a peer, is returned as an enum mode_status with a sentence in struct mode_error.
 *
 *     if (n > limit)
 *         return MODE_FAIL(err, MODE_E_VALUE, "%s: %zu rows, at most %zu are allowed", path, n, limit);
 *
 * The text is a sentence with what, which, expected and got. The lowest function which knows the facts writes
 * it; callers add at most a prefix (mode_error_prefix); exactly one place logs it.
 *
 * Threads: a struct mode_error belongs to one caller. */
#ifndef MODE_BASE_ERROR_H
#define MODE_BASE_ERROR_H

#include <stddef.h>

/* name, number (fixed: it travels in messages), process exit code, text */
#define MODE_STATUS_MAP(X)                                                                                             \
    X(OK, 0, 0, "ok")                                                                                                  \
    X(E_VALUE, 1, 65, "a value is out of range")                                                                       \
    X(E_SHAPE, 2, 65, "tensor shapes disagree")                                                                        \
    X(E_MEMORY, 3, 70, "not enough memory")                                                                            \
    X(E_IO, 4, 74, "file or socket failure")                                                                           \
    X(E_FORMAT, 5, 65, "data is malformed or of another version")                                                      \
    X(E_PEER, 6, 69, "another service is unreachable; retry may help")                                                 \
    X(E_DEVICE, 7, 70, "the compute device failed")                                                                    \
    X(E_STOPPED, 8, 143, "asked to stop")                                                                              \
    X(E_USAGE, 9, 2, "the command line is wrong")                                                                      \
    X(E_CONFIG, 10, 78, "the configuration is wrong")                                                                  \
    X(E_NOINPUT, 11, 66, "an input does not exist")                                                                    \
    X(E_CREATE, 12, 73, "an output cannot be created")                                                                 \
    X(E_PERM, 13, 77, "permission denied")                                                                             \
    X(E_TEMP, 14, 75, "a temporary condition; try again later")                                                        \
    X(E_GENERIC, 15, 1, "failed")

enum mode_status {
#define X(name, code, exit_code, text) MODE_##name = code,
    MODE_STATUS_MAP(X)
#undef X
};

struct mode_error {
    enum mode_status status;
    const char *file; /* static storage: where it was set    */
    int line;
    char text[1024]; /* full sentence: what, which, expected, got */
};

/* "E_FORMAT"; "?" for an unknown number. */
const char *mode_status_name(enum mode_status st);
/* The exit code of a process that ends with this status (sysexits; docs/FORMATS.md lists them). */
int mode_status_exit_code(enum mode_status st);

/* Fill err (may be NULL) and return st, so that `return MODE_FAIL(...)` is the only way in which an error is
 * created. */
enum mode_status mode_error_set(struct mode_error *err, enum mode_status st, const char *file, int line,
                                const char *fmt, ...) __attribute__((format(printf, 5, 6)));
#define MODE_FAIL(err, st, ...) mode_error_set((err), (st), __FILE__, __LINE__, __VA_ARGS__)

/* Put "<prefix>: " before the text of err (may be NULL); returns err's status, or st when err is NULL. */
enum mode_status mode_error_prefix(struct mode_error *err, enum mode_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Replaces the name of a temporary file in the text of err (may be NULL) by the name of the final file. */
void mode_error_rename(struct mode_error *err, const char *temporary, const char *name);

/* A bug of ours: prints expression, place and backtrace, and aborts. Always on; no side effects inside. */
#define MODE_ASSERT(expr) ((expr) ? (void)0 : mode_assert_failed(#expr, __FILE__, __LINE__))
void mode_assert_failed(const char *expr, const char *file, int line) __attribute__((noreturn));

#endif
