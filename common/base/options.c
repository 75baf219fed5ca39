#include "base/options.h"

#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum mode_status mode_parse_int(const char *text, const char *what, int64_t min, int64_t max, int64_t *out,
                                struct mode_error *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" is not a whole number", what, text);
    if (errno == ERANGE || v < min || v > max)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: %s is out of range, expected %lld to %lld", what, text, (long long)min,
                         (long long)max);
    *out = v;
    return MODE_OK;
}

enum mode_status mode_parse_real(const char *text, const char *what, double *out, struct mode_error *err)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || !isfinite(v))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" is not a number", what, text);
    *out = v;
    return MODE_OK;
}

static enum mode_status option_set(void *out, const struct mode_option *o, const char *text, const char *what,
                                   enum mode_status kind, struct mode_error *err)
{
    char *field = (char *)out + o->offset;
    enum mode_status st = MODE_OK;
    switch (o->type) {
    case MODE_OPTION_STR: *(const char **)field = text; break;
    case MODE_OPTION_INT: st = mode_parse_int(text, what, INT64_MIN, INT64_MAX, (int64_t *)field, err); break;
    case MODE_OPTION_REAL: st = mode_parse_real(text, what, (double *)field, err); break;
    case MODE_OPTION_FLAG:
    case MODE_OPTION_BARE:
        if (strcmp(text, "1") == 0 || strcmp(text, "true") == 0)
            *(bool *)field = true;
        else if (strcmp(text, "0") == 0 || strcmp(text, "false") == 0)
            *(bool *)field = false;
        else
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" is not true or false", what, text);
        break;
    case MODE_OPTION_END: break;
    }
    if (st) {
        if (err) err->status = kind;
        return kind;
    }
    return MODE_OK;
}

/* What "no default" means: NULL, 0, 0.0, false. */
static void option_clear(void *out, const struct mode_option *o)
{
    char *field = (char *)out + o->offset;
    switch (o->type) {
    case MODE_OPTION_STR: *(const char **)field = NULL; break;
    case MODE_OPTION_INT: *(int64_t *)field = 0; break;
    case MODE_OPTION_REAL: *(double *)field = 0; break;
    case MODE_OPTION_FLAG:
    case MODE_OPTION_BARE: *(bool *)field = false; break;
    case MODE_OPTION_END: break;
    }
}

static bool is_flag(const struct mode_option *o)
{
    return o->type == MODE_OPTION_FLAG || o->type == MODE_OPTION_BARE;
}

static void env_name(char *buf, size_t size, const char *prefix, const char *name)
{
    size_t n = (size_t)snprintf(buf, size, "%s", prefix);
    for (; *name && n + 1 < size; name++) buf[n++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    buf[n] = '\0';
}

static const struct mode_option *option_find(const struct mode_option *table, const char *name, size_t n)
{
    for (; table->type != MODE_OPTION_END; table++)
        if (strlen(table->name) == n && strncmp(table->name, name, n) == 0) return table;
    return NULL;
}

/* flag: without dashes, perhaps with "=value". */
static enum mode_status fail_unknown(const struct mode_option *table, const char *flag, size_t n,
                                     struct mode_error *err)
{
    enum { NEAR = 2 };
    char *name = mode_xasprintf("%.*s", (int)n, flag);
    const struct mode_option *best = NULL;
    size_t least = NEAR + 1;
    for (; table->type != MODE_OPTION_END; table++) {
        const size_t d = mode_str_distance(name, table->name);
        if (d >= least || d >= n) continue;
        least = d;
        best = table;
    }
    free(name);
    return best ? MODE_FAIL(err, MODE_E_USAGE, "unknown option --%s; is --%s meant? --help lists all", flag, best->name)
                : MODE_FAIL(err, MODE_E_USAGE, "unknown option --%s; --help lists them", flag);
}

/* Moves argv[from] to argv[to] and shifts the elements between by one. */
static void to_front(char **argv, int to, int from)
{
    char *a = argv[from];
    memmove(argv + to + 1, argv + to, (size_t)(from - to) * sizeof *argv);
    argv[to] = a;
}

enum mode_status mode_options_parse(void *out, const struct mode_option *table, const char *env_prefix, int argc,
                                    char **argv, int *n_args, struct mode_error *err)
{
    enum mode_status st;
    char name[128], what[160];
    int n = 0;
    for (const struct mode_option *o = table; o->type != MODE_OPTION_END; o++) {
        option_clear(out, o);
        if (o->value && (st = option_set(out, o, o->value, o->name, MODE_E_CONFIG, err))) return st;
        env_name(name, sizeof name, env_prefix, o->name);
        const char *v = o->type == MODE_OPTION_BARE ? NULL : getenv(name);
        if (v && (st = option_set(out, o, v, name, MODE_E_CONFIG, err))) return st;
    }
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (a[0] != '-' || a[1] == '\0') {
            to_front(argv, ++n, i);
            continue;
        }
        if (strcmp(a, "--") == 0) {
            while (++i < argc) to_front(argv, ++n, i);
            break;
        }
        if (a[1] != '-') return MODE_FAIL(err, MODE_E_USAGE, "unknown option %s; --help lists them", a);
        const char *flag = a + 2, *eq = strchr(flag, '=');
        size_t len = eq ? (size_t)(eq - flag) : strlen(flag);
        const struct mode_option *o = option_find(table, flag, len);
        const char *value = eq ? eq + 1 : NULL;
        if (!o && !eq && strncmp(flag, "no-", 3) == 0) {
            o = option_find(table, flag + 3, len - 3);
            if (o && !is_flag(o)) o = NULL;
            value = "0";
        }
        if (!o) return fail_unknown(table, flag, len, err);
        if (!value && is_flag(o)) value = "1";
        if (!value) {
            if (i + 1 >= argc) return MODE_FAIL(err, MODE_E_USAGE, "--%s needs a value (%s)", o->name, o->meta);
            value = argv[++i];
        }
        snprintf(what, sizeof what, "--%s", o->name);
        if ((st = option_set(out, o, value, what, MODE_E_USAGE, err))) return st;
    }
    *n_args = n;
    return MODE_OK;
}

enum mode_status mode_option_wrong(struct mode_error *err, const char *name)
{
    mode_error_prefix(err, MODE_E_USAGE, "--%s", name);
    if (err) err->status = MODE_E_USAGE;
    return MODE_E_USAGE;
}

enum mode_status mode_options_blame(enum mode_status st, struct mode_error *err, const char *env_prefix, int argc,
                                    char **argv)
{
    char name[128], variable[128], text[sizeof err->text];
    const size_t n = strncmp(err->text, "--", 2) == 0
                         ? 2 + strspn(err->text + 2, "abcdefghijklmnopqrstuvwxyz0123456789-")
                         : 0;
    if (st != MODE_E_USAGE || n < 3 || n >= sizeof name) return st;
    snprintf(name, sizeof name, "%.*s", (int)n, err->text);
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && (argv[i][n] == '\0' || argv[i][n] == '=')) return st;
    env_name(variable, sizeof variable, env_prefix, name + 2);
    if (!getenv(variable)) return st;
    snprintf(text, sizeof text, "%s", err->text + n);
    return MODE_FAIL(err, MODE_E_CONFIG, "%s%s", variable, text);
}

bool mode_options_wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

/* Width of the help: COLUMNS, else the terminal's width up to a readable maximum. */
static int help_width(void)
{
    enum { LEAST = 60, MOST = 100 };
    struct winsize terminal;
    const char *columns = getenv("COLUMNS");
    int width = columns ? atoi(columns) : 0;
    if (width <= 0) {
        width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &terminal) == 0 ? terminal.ws_col : 0;
        if (width == 0 || width > MOST) width = MOST;
    }
    return width < LEAST ? LEAST : width;
}

/* Display width of n bytes of UTF-8. */
static int columns_of(const char *text, size_t n)
{
    int columns = 0;
    for (size_t i = 0; i < n; i++) columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    return columns;
}

/* Prints text in lines of at most width columns, those after the first indented. Line breaks are kept, and lines that
 * begin with a space are not changed. */
static void print_filled(const char *text, int indent, int width)
{
    int at = indent;
    bool first_word = true, as_it_is = text[0] == ' ';
    while (*text) {
        const size_t n = strcspn(text, as_it_is ? "\n" : " \n");
        const int columns = columns_of(text, n);
        if (!first_word && at + 1 + columns > width) {
            printf("\n%*s", indent, "");
            at = indent;
        } else if (!first_word) {
            putchar(' ');
            at++;
        }
        fwrite(text, 1, n, stdout);
        at += columns;
        text += n;
        first_word = *text == '\n';
        if (first_word) {
            printf("\n%*s", text[1] == '\n' || !text[1] ? 0 : indent, "");
            as_it_is = *++text == ' ';
            at = indent;
        } else {
            text += strspn(text, " ");
        }
    }
    putchar('\n');
}

void mode_options_help(const struct mode_option *table, const char *env_prefix, const char *usage, const char *prose)
{
    enum { LEFT = 29 };
    const int width = help_width();
    char name[128], left[160];
    printf("usage: ");
    print_filled(usage, 7, width);
    putchar('\n');
    print_filled(prose, 0, width);
    if (table->type != MODE_OPTION_END) printf("\noptions (environment variable in brackets):\n");
    for (; table->type != MODE_OPTION_END; table++) {
        const bool has_default = table->value && strcmp(table->value, "-1") != 0;
        env_name(name, sizeof name, env_prefix, table->name);
        snprintf(left, sizeof left, "--%s%s%s", table->name, table->meta ? " " : "", table->meta ? table->meta : "");
        const bool fits = columns_of(left, strlen(left)) <= LEFT - 3;
        if (fits)
            printf("  %-*s ", LEFT - 3, left);
        else
            printf("  %s\n%*s", left, LEFT, "");
        char *help = mode_xasprintf(
            "%s%s%s%s%s%s%s", table->help, has_default ? " (default " : "", has_default ? table->value : "",
            has_default ? ")" : "", table->type == MODE_OPTION_BARE ? "" : " [",
            table->type == MODE_OPTION_BARE ? "" : name, table->type == MODE_OPTION_BARE ? "" : "]");
        print_filled(help, LEFT, width);
        free(help);
    }
}
