/* held_outputs.h - regression check of a service's output version (common/msg/code_version.c): its outputs on a test's
 * small fixture are compared with tests/golden/outputs.txt. A change of a service's outputs fails here, before earlier
 * outputs would be reused under a version that no longer makes them.
 *
 * A line of that file: service, its version, the name of the case, the digest of everything that must be the same on
 * every machine (text, integers, names, shapes), and for floats, which differ in their last digits between CPUs: their
 * number, their sum, the sum of their magnitudes, and an order-dependent sum. report.html, for people, is not checked.
 *
 * MODE_WRITE_OUTPUTS=1 rewrites the lines of services whose version was raised, and adds missing ones. */
#ifndef MODE_TESTS_HELD_OUTPUTS_H
#define MODE_TESTS_HELD_OUTPUTS_H

#include "base/file.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "msg/code_version.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HELD_FILE MODE_SOURCE_DIR "/tests/golden/outputs.txt"

struct held {
    struct mode_str exact;
    double n, sum, magnitude, order;
};

static inline void held_number(struct held *h, double x)
{
    h->sum += x;
    h->magnitude += fabs(x);
    h->order += x * (1 + fmod(h->n, 7));
    h->n++;
}

/* Numbers with a fraction or an exponent are taken out of a text, integers are exact. Digests of files that contain
 * floats are excluded, and so is `root`, the folder of the test. */
static inline void held_text(struct held *h, const char *text, const char *root)
{
    const size_t n_root = root ? strlen(root) : 0;
    char before = ' ';
    while (*text) {
        size_t n = n_root && strncmp(text, root, n_root) == 0 ? n_root : 0, hex = strspn(text, "0123456789abcdef");
        char *end = NULL;
        if (n) {
            mode_str_add_cstr(&h->exact, "/ROOT");
        } else if (hex >= 16) {
            mode_str_add_cstr(&h->exact, "@");
            n = hex;
        } else if (!isalnum((unsigned char)before) && before != '.' &&
                   (isdigit((unsigned char)*text) || *text == '-')) {
            double x = strtod(text, &end);
            size_t digits = strspn(text, "-0123456789"), all = (size_t)(end - text);
            if (all > digits) {
                held_number(h, x);
                mode_str_add_cstr(&h->exact, "#");
                n = all;
            }
        }
        if (!n) mode_str_add(&h->exact, text, n = 1);
        before = text[n - 1];
        text += n;
    }
}

static inline void held_tensors(struct held *h, const char *path, const char *root)
{
    struct mode_error err;
    struct mode_safetensors f;
    char shape[64];
    if (mode_safetensors_open(&f, path, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < f.n_meta; i++) {
        mode_str_printf(&h->exact, "\n%s=", f.meta[i].key);
        held_text(h, f.meta[i].value, root);
    }
    for (size_t i = 0; i < f.n_tensors; i++) {
        const struct mode_tensor *t = &f.tensors[i];
        mode_str_printf(&h->exact, "\n%s %s %s ", t->name, mode_dtype_name(t->dtype),
                        mode_tensor_shape_text(t, shape, sizeof shape));
        if (t->dtype == MODE_DTYPE_F32)
            for (int64_t k = 0; k < mode_tensor_count(t); k++) held_number(h, (double)((const float *)t->data)[k]);
        else
            mode_str_add(&h->exact, t->data, mode_tensor_bytes(t));
    }
    mode_safetensors_close(&f);
}

static inline bool held_agree(double a, double b, double magnitude, double tolerance)
{
    return fabs(a - b) <= tolerance * magnitude + 1e-12;
}

/* The rest of the line of that service and name after its version, or NULL. */
static inline const char *held_find(char *line, const char *service, const char *name, unsigned *number)
{
    char s[64], w[64];
    int at = 0;
    if (sscanf(line, "%63s %u %63s %n", s, number, w, &at) != 3 || !at) return NULL;
    return strcmp(s, service) == 0 && strcmp(w, name) == 0 ? line + at : NULL;
}

static inline void held_compare(struct held *h, const char *service, const char *name, double tolerance)
{
    const unsigned ours = mode_code_number(service);
    const bool write = getenv("MODE_WRITE_OUTPUTS") != NULL;
    struct mode_error err;
    struct mode_str out = {0};
    char digest[MODE_DIGEST_HEX], want[MODE_DIGEST_HEX], *text, *next, *mine;
    bool found = false, same = false;
    unsigned number = 0;
    mode_digest_bytes(h->exact.data, h->exact.len, digest);
    mine = mode_xasprintf("%s %u %s %s %.0f %.9g %.9g %.9g\n", service, ours, name, digest, h->n, h->sum, h->magnitude,
                          h->order);
    if (mode_file_read(HELD_FILE, 0, &text, NULL, &err)) fail_msg("%s", err.text);
    for (char *line = text; *line; line = next) {
        double n, sum, magnitude, order;
        next = strchr(line, '\n');
        next = next ? next + 1 : line + strlen(line);
        char *copy = mode_xasprintf("%.*s", (int)(next - line), line);
        const char *rest = found ? NULL : held_find(copy, service, name, &number);
        if (rest) {
            found = true;
            if (sscanf(rest, "%64s %lf %lf %lf %lf", want, &n, &sum, &magnitude, &order) != 5)
                fail_msg("%s: a line of %s is damaged", HELD_FILE, service);
            same = strcmp(digest, want) == 0 && n == h->n &&
                   held_agree(magnitude, h->magnitude, magnitude, tolerance) &&
                   held_agree(sum, h->sum, magnitude, tolerance) &&
                   held_agree(order, h->order, 7 * magnitude, tolerance);
            mode_str_add_cstr(&out, number == ours ? copy : mine);
        } else
            mode_str_add_cstr(&out, copy);
        free(copy);
    }
    if (!found) mode_str_add_cstr(&out, mine);
    if (write && mode_file_write_atomic(HELD_FILE, out.data, out.len, &err)) fail_msg("%s", err.text);
    if (!write && !found)
        fail_msg("%s has no line \"%s %u %s\". HINT: MODE_WRITE_OUTPUTS=1 writes it", HELD_FILE, service, ours, name);
    if (!write && number != ours)
        fail_msg("%s is of %s-%u, the table in common/msg/code_version.c says %u. HINT: MODE_WRITE_OUTPUTS=1 writes "
                 "the lines of "
                 "raised numbers anew",
                 HELD_FILE, service, number, ours);
    if (found && number == ours && !same)
        fail_msg(
            "%s: %s is not what %s-%u makes any more: what was made before would be taken for what is made now. Raise "
            "the number in common/msg/code_version.c, with a line why, and write %s anew (MODE_WRITE_OUTPUTS=1), or "
            "undo the change\n  made     %s",
            service, name, service, ours, HELD_FILE, mine);
    mode_str_clear(&out);
    free(text);
    free(mine);
    mode_str_clear(&h->exact);
}

/* An output file of that service. tolerance: of sums, relative to the sum of magnitudes. */
static inline void held_file(const char *service, const char *name, const char *path, const char *root,
                             double tolerance)
{
    struct mode_error err;
    struct held h = {0};
    const size_t n = strlen(path);
    if (n > 12 && strcmp(path + n - 12, ".safetensors") == 0) {
        held_tensors(&h, path, root);
    } else {
        char *text;
        size_t size;
        if (mode_file_read(path, 0, &text, &size, &err)) fail_msg("%s", err.text);
        if (strlen(text) == size)
            held_text(&h, text, root);
        else
            mode_str_add(&h.exact, text, size); /* captions.bin */
        free(text);
    }
    held_compare(&h, service, name, tolerance);
}

/* The bytes that a key of that service is computed from, without what depends on this test's folder. */
static inline void held_key(const char *service, const char *name, const uint8_t *bytes, size_t size, const char *root)
{
    struct held h = {0};
    const size_t n_root = strlen(root);
    char *copy = mode_xmalloc(size + 1);
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    for (size_t i = 0; i < size; i++) {
        size_t hex = 0;
        if (i + n_root <= size && memcmp(copy + i, root, n_root) == 0) memset(copy + i, '/', n_root);
        while (i + hex < size && strchr("0123456789abcdef", copy[i + hex]) && copy[i + hex]) hex++;
        if (hex >= 64) memset(copy + i, '@', hex);
        if (hex) i += hex - 1;
    }
    mode_str_add(&h.exact, copy, size);
    free(copy);
    held_compare(&h, service, name, 0);
}

#endif
