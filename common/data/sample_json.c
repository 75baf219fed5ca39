#include "data/sample_json.h"

#include "base/str.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Prepares the text for the parser: checks the depth and replaces, outside strings, NaN (a missing text in tables from
 * pandas), Infinity and -Infinity, which Python's json module writes but JSON does not have. */
static bool tame_json(char *p, size_t n)
{
    static const struct {
        const char *word;
        size_t n;
    } words[] = {{"NaN", 3}, {"-Infinity", 9}, {"Infinity", 8}};
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (p[i] == '\\')
                i++;
            else if (p[i] == '"')
                in_string = false;
            continue;
        }
        switch (p[i]) {
        case '"': in_string = true; break;
        case '{':
        case '[':
            if (++depth > MODE_JSON_MAX_DEPTH) return false;
            break;
        case '}':
        case ']': depth--; break;
        case 'N':
        case 'I':
        case '-':
            for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
                if (n - i < words[w].n || memcmp(p + i, words[w].word, words[w].n) != 0) continue;
                memset(p + i, ' ', words[w].n);
                memcpy(p + i, "\"\"", 2);
                i += words[w].n - 1;
                break;
            }
            break;
        default: break;
        }
    }
    return true;
}

enum mode_fate mode_sample_json(json_t **root, const char *data, size_t size, char why[MODE_WHY_BYTES])
{
    json_error_t e;
    *root = NULL;
    if (size > MODE_SAMPLE_JSON_MAX_BYTES) {
        snprintf(why, MODE_WHY_BYTES, "the JSON is larger than 1 MiB");
        return MODE_FATE_BAD_JSON;
    }
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
        data += 3;
        size -= 3;
    }
    if (!mode_utf8_is_text(data, size)) {
        snprintf(why, MODE_WHY_BYTES, "the JSON is not UTF-8");
        return MODE_FATE_BAD_TEXT;
    }
    char *copy = mode_xmalloc(size + 1);
    memcpy(copy, data, size);
    if (!tame_json(copy, size))
        snprintf(why, MODE_WHY_BYTES, "the JSON is nested more than 32 levels deep");
    else if (!(*root = json_loadb(copy, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e)))
        snprintf(why, MODE_WHY_BYTES, "JSON, byte %d: %.80s", e.position, e.text);
    else if (!json_is_object(*root)) {
        snprintf(why, MODE_WHY_BYTES, "the JSON is not an object");
        json_decref(*root);
        *root = NULL;
    }
    free(copy);
    return *root ? MODE_FATE_KEPT : MODE_FATE_BAD_JSON;
}
