/* spec_text.h - writes a run spec for people: sections, keys, and a comment beside each.
 *
 *     struct spec_text t = {0};
 *     spec_text_key(&t, "name", "b32", "one run per name in a workspace");
 *     spec_text_section(&t, "train", "");
 *     spec_text_key(&t, "batch", "256", "pairs per step");
 *     ... spec_text_done(&t) ...
 *     spec_text_clear(&t);
 *
 * Comments of a section are aligned. A key with a long value has its comment above it. Values are YAML as they are;
 * spec_text_string quotes a text where YAML needs it. Control characters of comments become blanks. */
#ifndef MODE_SERVICES_MODE_SPEC_TEXT_H
#define MODE_SERVICES_MODE_SPEC_TEXT_H

#include "base/str.h"

#include <stdbool.h>

struct spec_text {
    struct mode_str out;
    struct spec_text_row {
        char *key, *comment; /* comment: "" for none */
    } * row;                 /* of the current section, not yet written */
    size_t n;
    bool in_section;
};

/* A top-level section. */
void spec_text_section(struct spec_text *t, const char *name, const char *comment);
void spec_text_key(struct spec_text *t, const char *key, const char *value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A key as an example: commented out. */
void spec_text_example(struct spec_text *t, const char *key, const char *value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "# ..." on a line of its own, at the indentation of the keys. */
void spec_text_comment(struct spec_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void spec_text_blank(struct spec_text *t);
/* The whole text, until the next call. */
const char *spec_text_done(struct spec_text *t);
void spec_text_clear(struct spec_text *t);

/* A YAML scalar with this value; the caller frees. */
char *spec_text_string(const char *text);
/* A word as a POSIX shell reads it, for a command in a comment: quoted if needed, on one line; the caller frees. */
char *spec_text_shell(const char *word);

#endif
