#include "init_request.h"

#include "base/path.h"
#include "pipeline/cache.h"
#include "pipeline/defaults.h"
#include "pipeline/spec.h"
#include "remote/address.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

char *init_path(const struct init_request *r, const char *path)
{
    return r->here && path[0] != '/' ? mode_path_join(r->here, path) : mode_xstrdup(path);
}

static void add_part(struct mode_str *s, const struct init_request *r, const char *part)
{
    const bool list = part[0] == '@';
    if (mode_remote_is(part) || strncasecmp(part, "file:", 5) == 0 || strncmp(part, "pipe:", 5) == 0) {
        mode_str_add_cstr(s, part);
        return;
    }
    char *path = init_path(r, part + list);
    mode_str_printf(s, "%s%s", list ? "@" : "", path);
    free(path);
}

char *init_source(const struct init_request *r, const char *source)
{
    struct mode_str s = {0};
    for (const char *join; (join = strstr(source, "::")); source = join + 2) {
        char *part = mode_xasprintf("%.*s", (int)(join - source), source);
        add_part(&s, r, part);
        mode_str_add_cstr(&s, "::");
        free(part);
    }
    add_part(&s, r, source);
    char *text = spec_text_string(s.data ? s.data : "");
    mode_str_clear(&s);
    return text;
}

char *init_name(const char *text)
{
    enum { MOST = 64 };
    struct mode_str s = {0};
    for (text += strspn(text, "."); *text && s.len < MOST; text++) {
        const char one[] = {*text, '\0'};
        mode_str_add_char(&s, mode_spec_is_name(one) || *text == '.' ? *text : '-');
    }
    if (s.len == 0) mode_str_add_cstr(&s, "run");
    return s.data;
}

/* The last folder of a source, or a list's file. */
static char *place_of(const char *source)
{
    struct stat sb;
    char *text = mode_xasprintf("%.*s", (int)strcspn(source, "*?[{"), source), *end;
    const bool whole = strlen(text) == strlen(source);
    if ((end = strstr(text, "::"))) *end = '\0';
    if (source[0] == '@') {
        if ((end = strrchr(text, '.'))) *end = '\0';
    } else if (!whole || stat(text, &sb) != 0 || !S_ISDIR(sb.st_mode)) {
        end = strrchr(text, '/');
        *(end ? end : text) = '\0';
    }
    while ((end = strrchr(text, '/')) && !end[1]) *end = '\0';
    return text;
}

char *init_name_of(const char *source)
{
    char *place = place_of(source), *name = init_name(mode_path_base(place) + (place[0] == '@' && !strchr(place, '/')));
    free(place);
    return name;
}

void init_write_next(struct spec_text *t, const struct init_request *r, const char *first, uint64_t gpus)
{
    char *out = spec_text_shell(r->out ? r->out : "SPEC.yaml");
    char *on = gpus > 1 ? mode_xasprintf(" --gpus %llu", (unsigned long long)gpus) : mode_xstrdup("");
    spec_text_comment(t, "Next:");
    for (size_t n; first && *first; first += n + (first[n] != '\0')) {
        n = strcspn(first, "\n");
        spec_text_comment(t, "    %.*s", (int)n, first);
    }
    spec_text_comment(t, "    mode doctor --spec %s    # checks the spec, its inputs and this machine", out);
    spec_text_comment(t, "    mode up --workspace W%s && mode run %s --workspace W", on, out);
    free(on);
    free(out);
}

/* A folder, or a model of the hub, ORG/NAME. */
static bool is_folder(const char *encoder)
{
    struct stat sb;
    struct mode_hub_id id;
    if (strchr("/.", encoder[0]) || (stat(encoder, &sb) == 0 && S_ISDIR(sb.st_mode))) return true;
    if (!mode_hub_id_parse(&id, encoder)) return true;
    mode_hub_id_clear(&id);
    return false;
}

void init_write_encoder(struct spec_text *t, const struct init_request *r)
{
    const char *encoder = r->encoder ? r->encoder : INIT_ENCODER, *hub = mode_hub_name(encoder);
    spec_text_section(t, "encoder", "");
    if (!hub && is_folder(encoder)) {
        char *path = init_path(r, encoder), *text = spec_text_string(path);
        spec_text_key(t, "dir", text, "text encoder, whose vectors of the captions are clustered");
        free(text);
        free(path);
        return;
    }
    char *text = spec_text_string(hub ? hub : encoder);
    spec_text_key(t, "hub", text, "text encoder, whose vectors of the captions are clustered%s; or dir: FOLDER",
                  r->encoder ? "" : " (the paper's)");
    free(text);
}

void init_write_cluster(struct spec_text *t, const struct init_request *r, uint64_t fine, const char *why)
{
    char *experts = mode_xasprintf("%lld", (long long)r->experts);
    char *number = fine ? mode_xasprintf("%llu", (unsigned long long)fine) : mode_xstrdup(MODE_DEFAULT_FINE);
    spec_text_section(t, "cluster", "");
    spec_text_key(t, "fine", number, "fine centres%s", why);
    spec_text_key(t, "coarse", experts, "coarse clusters = experts");
    free(number);
    free(experts);
}

void init_write_tasks(struct spec_text *t, const char *tasks, const char *comment)
{
    if (tasks) {
        char *text = spec_text_string(tasks);
        spec_text_section(t, "evaluate", "");
        spec_text_key(t, "tasks", text, "%s", comment);
        free(text);
        return;
    }
    spec_text_blank(t);
    spec_text_comment(t, "evaluate:");
    spec_text_comment(t,
                      "  tasks: TASKS  # zero-shot evaluation: CLIP_benchmark folders; `mode pack --task` makes them");
}
