#include "remote/aws_profile.h"

#include "base/file.h"
#include "base/str.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_INI = 1 << 20 };

static const char blanks[] = " \t\r";

/* Trims white space from [at, *end). */
static const char *trim(const char *at, const char **end)
{
    while (at < *end && strchr(blanks, *at)) at++;
    while (*end > at && strchr(blanks, (*end)[-1])) (*end)--;
    return at;
}

static bool is(const char *at, const char *end, const char *word)
{
    return (size_t)(end - at) == strlen(word) && strncasecmp(at, word, strlen(word)) == 0;
}

char *mode__aws_ini(const char *text, const char *section, const char *key)
{
    static const char mark[] = "\xef\xbb\xbf"; /* byte order mark */
    char *value = NULL;
    bool inside = false;
    if (strncmp(text, mark, strlen(mark)) == 0) text += strlen(mark);
    for (const char *line = text, *next; *line; line = next) {
        const char *stop = line + strcspn(line, "\n"), *end = stop;
        next = *stop ? stop + 1 : stop;
        if (strchr(" \t\r#;\n", *line)) continue;
        if (*line == '[') {
            const char *close = memchr(line, ']', (size_t)(end - line)), *name = line + 1;
            if (close) name = trim(name, &close);
            inside = close && (size_t)(close - name) == strlen(section) && strncmp(name, section, strlen(section)) == 0;
            if (inside && !key && !value) value = mode_xstrdup("");
            continue;
        }
        const char *equals = inside && key ? memchr(line, '=', (size_t)(end - line)) : NULL, *name_end = equals;
        if (!equals) continue;
        const char *name = trim(line, &name_end);
        if (!is(name, name_end, key)) continue;
        const char *from = trim(equals + 1, &end);
        free(value);
        value = mode_xasprintf("%.*s", (int)(end - from), from);
    }
    return value;
}

/* One of the two files, "" if missing. */
static enum mode_status read_file(char **text, const char *named, const char *usual, struct mode_error *err)
{
    const char *home = getenv("HOME");
    char *path = named ? mode_xstrdup(named) : mode_xasprintf("%s/.aws/%s", home ? home : "", usual);
    enum mode_status st = mode_file_exists(path) ? mode_file_read(path, MOST_INI, text, NULL, err) : MODE_OK;
    if (!st && !*text) *text = mode_xstrdup("");
    free(path);
    return st;
}

enum mode_status mode__aws_files_read(struct mode__aws_files *f, struct mode_error *err)
{
    const char *profile = mode__aws_variable("AWS_PROFILE");
    *f = (struct mode__aws_files){.profile = mode_xstrdup(profile ? profile : "default")};
    enum mode_status st = read_file(&f->credentials, mode__aws_variable("AWS_SHARED_CREDENTIALS_FILE"), "credentials",
                                    err);
    return st ? st : read_file(&f->config, mode__aws_variable("AWS_CONFIG_FILE"), "config", err);
}

void mode__wipe(char *text)
{
    if (text) explicit_bzero(text, strlen(text));
    free(text);
}

void mode__aws_files_clear(struct mode__aws_files *f)
{
    mode__wipe(f->credentials);
    mode__wipe(f->config);
    free(f->profile);
    *f = (struct mode__aws_files){0};
}

static char *unless_empty(char *value)
{
    if (value && *value) return value;
    free(value);
    return NULL;
}

char *mode__aws_of_credentials(const struct mode__aws_files *f, const char *profile, const char *key)
{
    return unless_empty(mode__aws_ini(f->credentials, profile, key));
}

/* In the config file sections are "default" or "profile NAME". */
static char *in_config(const struct mode__aws_files *f, const char *profile, const char *key)
{
    char *section = mode_xasprintf("profile %s", profile), *value = mode__aws_ini(f->config, section, key);
    if (!value && strcmp(profile, "default") == 0) value = mode__aws_ini(f->config, profile, key);
    free(section);
    return value;
}

char *mode__aws_of_config(const struct mode__aws_files *f, const char *profile, const char *key)
{
    return unless_empty(in_config(f, profile, key));
}

char *mode__aws_setting(const struct mode__aws_files *f, const char *profile, const char *key)
{
    char *value = mode__aws_of_credentials(f, profile, key);
    return value ? value : mode__aws_of_config(f, profile, key);
}

bool mode__aws_has_profile(const struct mode__aws_files *f, const char *profile)
{
    char *one = mode__aws_ini(f->credentials, profile, NULL), *other = in_config(f, profile, NULL);
    const bool there = one || other;
    free(one);
    free(other);
    return there;
}

const char *mode__aws_variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

char *mode__aws_variable_or(const char *name, const struct mode__aws_files *f, const char *key)
{
    const char *value = mode__aws_variable(name);
    return value ? mode_xstrdup(value) : mode__aws_setting(f, f->profile, key);
}
