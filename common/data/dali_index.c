#include "data/dali_index.h"

#include "base/str.h"

#include <string.h>

static bool has_blank(const char *s)
{
    return s[strcspn(s, " \t\r\n\v\f")] != '\0';
}

enum mode_status mode_dali_index_write(const char *path, const struct mode_sample_list *s, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct mode_str lines = {0}, text = {0};
    size_t n_samples = 0;
    for (size_t i = 0; !st && i < s->n_groups; i++) {
        const struct mode_group *g = &s->groups[i];
        size_t n = 0;
        for (size_t k = g->first; !st && k < g->first + g->n; k++) {
            const struct mode_member *m = &s->members[k];
            if (has_blank(g->key) || has_blank(m->ext))
                st = MODE_FAIL(err, MODE_E_VALUE,
                               "%s: sample %zu has a blank in its name, which a DALI index cannot hold", path, i);
            else if (m->whole)
                mode_str_printf(&lines, "%s%s %llu %llu %s.%s", n++ ? " " : "", m->ext, (unsigned long long)m->offset,
                                (unsigned long long)m->size, g->key, m->ext);
        }
        if (n) {
            mode_str_add_char(&lines, '\n');
            n_samples++;
        }
    }
    if (!st) {
        mode_str_printf(&text, "v1.2 %zu\n", n_samples);
        mode_str_add(&text, lines.data, lines.len);
        st = mode_file_write_atomic(path, text.data, text.len, err);
    }
    mode_str_clear(&lines);
    mode_str_clear(&text);
    return st;
}
