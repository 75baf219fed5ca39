#include "pipeline/spec.h"

#include "base/file.h"
#include "base/fresh.h"
#include "base/options.h"
#include "base/str.h"
#include "data/caption_text.h"
#include "data/evalset.h"
#include "ensemble/router.h"
#include "ensemble/selection.h"
#include "optim/schedule.h"
#include "pipeline/cache.h"
#include "pipeline/given.h"
#include "pipeline/model_config.h"
#include "pipeline/spec_for.h"
#include "pipeline/spec_keys.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#define MAX_SPEC_BYTES (1u << 20)

enum key_type { STR, PATH, LIST, PATHS, UINT, REAL, BOOL, WORD, EITHER };

static const struct spec_key {
    const char *path;
    enum key_type type;
    size_t offset;
    const char *value; /* default as text; NULL = required */
    double min, max;
    const char *help;
} keys[] = {
#define X(path, type, field, value, min, max, help)                                                                    \
    {path, type, offsetof(struct mode_spec, field), value, min, max, help},
    MODE_SPEC_KEYS(X)
#undef X
};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

struct reader {
    struct mode_spec *spec;
    yaml_document_t doc;
    const char *what; /* name of the text, for errors */
    bool given[N_KEYS];
    bool model_given;
    struct mode_error *err;
};

static int line_of(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

static const char *scalar(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* The key for an option name of open_clip_train or another trainer, where the edit distance would not find it. tail:
 * the name after the section. */
static const char *key_of_open_clip(const char *tail)
{
    static const char *const known[][2] = {{"train_data", "data.train"},
                                           {"pretrained", "train.init"},
                                           {"learning_rate", "train.lr"},
                                           {"wd", "train.weight_decay"},
                                           {"warmup", "train.warmup_steps"},
                                           {"lr_scheduler", "train.schedule"},
                                           {"epochs_cooldown", "train.cooldown_steps"},
                                           {"lr_cooldown_power", "train.cooldown_power"},
                                           {"lr_cooldown_end", "train.cooldown_end"},
                                           {"accum_freq", "train.accumulate"},
                                           {"grad_checkpointing", "train.checkpoint_activations"},
                                           {"save_frequency", "train.checkpoint_steps"},
                                           {"zeroshot_frequency", "train.evaluate_steps"},
                                           {"imagenet_val", "evaluate.tasks"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i][0], tail) == 0) return known[i][1];
    return NULL;
}

static enum mode_status fail_unknown(struct reader *r, const char *path, int line)
{
    static const char *const others[] = {"model", "experts_for"}; /* not in the table */
    char best[64] = "";
    size_t best_distance = SIZE_MAX;
    const char *tail = strrchr(path, '.');
    tail = tail ? tail + 1 : path;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (mode_str_distance(path, others[i]) < best_distance) {
            best_distance = mode_str_distance(path, others[i]);
            snprintf(best, sizeof best, "%s", others[i]);
        }
    for (size_t i = 0; i < N_KEYS; i++) {
        size_t d = mode_str_distance(path, keys[i].path);
        const char *key_tail = strrchr(keys[i].path, '.');
        /* the right key in the wrong section is nearly as likely as a typing error */
        if (key_tail && strcmp(key_tail + 1, tail) == 0 && d > 1) d = 1;
        if (d < best_distance) {
            best_distance = d;
            snprintf(best, sizeof best, "%s", keys[i].path);
        }
        char section[64];
        snprintf(section, sizeof section, "%.*s", (int)strcspn(keys[i].path, "."), keys[i].path);
        if ((d = mode_str_distance(path, section)) < best_distance) {
            best_distance = d;
            snprintf(best, sizeof best, "%s", section);
        }
    }
    const char *theirs = key_of_open_clip(tail);
    if (theirs) snprintf(best, sizeof best, "%s", theirs);
    return MODE_FAIL(r->err, MODE_E_CONFIG,
                     "%s:%d: unknown key \"%s\"; the nearest known key is \"%s\" (docs/RUN.md lists all)", r->what,
                     line, path, best);
}

static char *absolute(const struct mode_spec *spec, const char *path)
{
    return path[0] == '/' || mode_hub_name(path) ? mode_xstrdup(path) : mode_path_join(spec->folder, path);
}

void mode_spec_list_add(struct mode_spec_list *list, char *item)
{
    list->item = mode_xrealloc(list->item, (list->n + 1) * sizeof *list->item);
    list->item[list->n++] = item;
}

static enum mode_status set_value(struct reader *r, const struct spec_key *key, const char *text, int line)
{
    void *field = (char *)r->spec + key->offset;
    struct mode_error why = {0};
    switch (key->type) {
    case STR:
        free(*(char **)field);
        *(char **)field = mode_xstrdup(text);
        return MODE_OK;
    case PATH:
        if (!*text && line > 0) return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s is empty", r->what, line, key->path);
        free(*(char **)field);
        *(char **)field = *text ? absolute(r->spec, text) : mode_xstrdup(""); /* an empty default */
        return MODE_OK;
    case LIST:
    case PATHS:
        if (!*text) return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s has an empty entry", r->what, line, key->path);
        mode_spec_list_add(field, key->type == PATHS ? absolute(r->spec, text) : mode_xstrdup(text));
        return MODE_OK;
    case UINT: {
        int64_t n;
        if (mode_parse_int(text, key->path, (int64_t)key->min, (int64_t)key->max, &n, &why))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s", r->what, line, why.text);
        *(uint64_t *)field = (uint64_t)n;
        return MODE_OK;
    }
    case REAL: {
        double x;
        if (mode_parse_real(text, key->path, &x, &why))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s", r->what, line, why.text);
        if (!(x >= key->min && x <= key->max))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s is %s, it must be between %.9g and %.9g", r->what, line,
                             key->path, text, key->min, key->max);
        *(double *)field = x;
        return MODE_OK;
    }
    case BOOL:
        if (strcmp(text, "true") && strcmp(text, "false"))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s is \"%s\", it must be true or false", r->what, line,
                             key->path, text);
        *(bool *)field = text[0] == 't';
        return MODE_OK;
    case WORD:
    case EITHER: {
        int n_words = (int)strcspn(key->help, ":");
        size_t n = strlen(text);
        for (const char *w = key->help; w < key->help + n_words; w += strcspn(w, "|:") + 1) {
            if (strcspn(w, "|:") != n || strncmp(w, text, n) != 0) continue;
            if (key->type == EITHER) {
                *(bool *)field = w != key->help;
            } else {
                free(*(char **)field);
                *(char **)field = mode_xstrdup(text);
            }
            return MODE_OK;
        }
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s is \"%s\", it must be one of %.*s", r->what, line, key->path,
                         text, n_words, key->help);
    }
    }
    MODE_ASSERT(!"known type");
    return MODE_E_GENERIC;
}

static enum mode_status read_value(struct reader *r, const struct spec_key *key, yaml_node_t *node)
{
    bool is_list = key->type == LIST || key->type == PATHS;
    if (node->type == YAML_SCALAR_NODE) {
        if (!is_list || *scalar(node)) return set_value(r, key, scalar(node), line_of(node));
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s is empty", r->what, line_of(node), key->path);
    }
    if (!is_list || node->type != YAML_SEQUENCE_NODE)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s must be %s", r->what, line_of(node), key->path,
                         is_list ? "a string or a list of strings" : "a single value");
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        yaml_node_t *item = yaml_document_get_node(&r->doc, *i);
        if (item->type != YAML_SCALAR_NODE)
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: the entries of %s must be strings", r->what, line_of(item),
                             key->path);
        enum mode_status st = set_value(r, key, scalar(item), line_of(item));
        if (st) return st;
    }
    return MODE_OK;
}

/* keys[i], unless train.betas has set it before. */
static enum mode_status read_key(struct reader *r, size_t i, yaml_node_t *node)
{
    if (r->given[i])
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s is given twice, by train.betas too", r->what, line_of(node),
                         keys[i].path);
    r->given[i] = true;
    return read_value(r, &keys[i], node);
}

bool mode_spec_is_taken(const char *name)
{
    static const char *const taken[] = {"seed",
                                        "dense",
                                        "init",
                                        "added",
                                        "all_unit",
                                        "ensemble",
                                        "average",
                                        "average_retrieval",
                                        "dataset",
                                        "metric",
                                        "num_classes",
                                        "index.json",
                                        "centres.safetensors"};
    enum mode_router router;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (strcmp(name, taken[i]) == 0) return true;
    return strncmp(name, "expert-", 7) == 0 || mode_router_parse(&router, name, NULL) == MODE_OK;
}

bool mode_spec_is_name(const char *name)
{
    const size_t n = strlen(name);
    return n >= 1 && n <= 64 && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static enum mode_status read_for_tasks(struct reader *r, struct mode_spec_for *x, yaml_node_t *node)
{
    static const char expected[] = "expected all, or the names of tasks";
    if (node->type == YAML_SCALAR_NODE && *scalar(node)) {
        x->all = strcmp(scalar(node), "all") == 0;
        if (!x->all) mode_spec_list_add(&x->tasks, mode_xstrdup(scalar(node)));
        return MODE_OK;
    }
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.start == node->data.sequence.items.top)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: tasks of experts_for is empty or not a list; %s", r->what,
                         line_of(node), expected);
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(&r->doc, *i);
        if (item->type != YAML_SCALAR_NODE || !*scalar(item))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: an entry of tasks of experts_for is not a name; %s",
                             r->what, line_of(item), expected);
        for (size_t k = 0; k < x->tasks.n; k++)
            if (strcmp(x->tasks.item[k], scalar(item)) == 0)
                return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: experts_for names the task %s twice", r->what,
                                 line_of(item), scalar(item));
        mode_spec_list_add(&x->tasks, mode_xstrdup(scalar(item)));
    }
    return MODE_OK;
}

static enum mode_status read_for_key(struct reader *r, struct mode_spec_for *x, const char *key, yaml_node_t *node)
{
    struct mode_error why;
    int64_t nearest;
    if (strcmp(key, "tasks") == 0) return read_for_tasks(r, x, node);
    if (strcmp(key, "name") != 0 && strcmp(key, "classes") != 0 && strcmp(key, "nearest") != 0)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s:%d: unknown key \"%s\" of experts_for; expected name, tasks or classes, and nearest",
                         r->what, line_of(node), key);
    if (node->type != YAML_SCALAR_NODE || !*scalar(node))
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s of experts_for must be a single value", r->what,
                         line_of(node), key);
    if (strcmp(key, "name") == 0) {
        x->name = mode_xstrdup(scalar(node));
    } else if (strcmp(key, "classes") == 0) {
        x->classes = scalar(node)[0] == '/' ? mode_xstrdup(scalar(node))
                                            : mode_path_join(r->spec->folder, scalar(node));
    } else {
        if (mode_parse_int(scalar(node), "nearest of experts_for", 1, MODE_SELECTION_MOST_NEAREST, &nearest, &why))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s", r->what, line_of(node), why.text);
        x->nearest = (uint64_t)nearest;
    }
    return MODE_OK;
}

static enum mode_status check_for(const struct reader *r, const struct mode_spec_for *x)
{
    /* `mode pairs --expert` would take a number for the expert's index */
    const bool is_number = x->name && strspn(x->name, "0123456789") == strlen(x->name);
    if (!x->name)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: an entry of experts_for has no name", r->what, x->line);
    if (!mode_spec_is_name(x->name) || mode_spec_is_taken(x->name) || is_number)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: \"%s\" is not a valid name for an expert of experts_for: %s",
                         r->what, x->line, x->name,
                         mode_spec_is_name(x->name)
                             ? "it is taken (seed, dense, expert-N, numbers, routers, columns of result.csv)"
                             : "it must be 1 to 64 letters, digits, '.', '_' or '-', not starting with "
                               "'.'");
    for (const struct mode_spec_for *y = r->spec->experts_for; y < x; y++)
        if (strcmp(x->name, y->name) == 0)
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: experts_for has the name %s twice, first in line %d",
                             r->what, x->line, x->name, y->line);
    if ((x->all || x->tasks.n) == (x->classes != NULL))
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s:%d: %s of experts_for names %s; expected one of the two: tasks, or classes (a file)",
                         r->what, x->line, x->name, x->classes ? "tasks and classes" : "neither tasks nor classes");
    return MODE_OK;
}

static enum mode_status read_experts_for(struct reader *r, yaml_node_t *node)
{
    struct mode_spec *s = r->spec;
    enum mode_status st = MODE_OK;
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.start == node->data.sequence.items.top)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: experts_for must be a list, of a mapping for each expert",
                         r->what, line_of(node));
    const size_t n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (n > MODE_SPEC_MOST_FOR)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: experts_for has %zu entries, at most %d are possible", r->what,
                         line_of(node), n, MODE_SPEC_MOST_FOR);
    s->experts_for = mode_xcalloc(n, sizeof *s->experts_for);
    for (size_t i = 0; i < n && !st; i++) {
        const yaml_node_t *item = yaml_document_get_node(&r->doc, node->data.sequence.items.start[i]);
        struct mode_spec_for *x = &s->experts_for[s->n_experts_for++];
        *x = (struct mode_spec_for){.nearest = 1, .line = line_of(item)};
        if (item->type != YAML_MAPPING_NODE)
            return MODE_FAIL(r->err, MODE_E_CONFIG,
                             "%s:%d: an entry of experts_for must be a mapping such as {name: pets, tasks: [wds_pets]}",
                             r->what, x->line);
        for (yaml_node_pair_t *p = item->data.mapping.pairs.start; p < item->data.mapping.pairs.top && !st; p++) {
            const yaml_node_t *key = yaml_document_get_node(&r->doc, p->key);
            if (key->type != YAML_SCALAR_NODE)
                return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: a key must be a string", r->what, line_of(key));
            for (yaml_node_pair_t *q = item->data.mapping.pairs.start; q < p; q++)
                if (strcmp(scalar(yaml_document_get_node(&r->doc, q->key)), scalar(key)) == 0)
                    return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: experts_for gives %s of an entry twice", r->what,
                                     line_of(key), scalar(key));
            st = read_for_key(r, x, scalar(key), yaml_document_get_node(&r->doc, p->value));
        }
        if (!st) st = check_for(r, x);
    }
    return st;
}

/* train.betas: [beta1, beta2], as in PyTorch. */
static enum mode_status read_betas(struct reader *r, yaml_node_t *node)
{
    enum mode_status st = MODE_OK;
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.top - node->data.sequence.items.start != 2)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: train.betas must be [beta1, beta2]", r->what, line_of(node));
    for (int b = 0; b < 2 && !st; b++) {
        size_t i = 0;
        while (strcmp(keys[i].path, b ? "train.beta2" : "train.beta1") != 0) i++;
        st = read_key(r, i, yaml_document_get_node(&r->doc, node->data.sequence.items.start[b]));
    }
    return st;
}

static bool is_section(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < N_KEYS; i++)
        if (strncmp(keys[i].path, path, n) == 0 && keys[i].path[n] == '.') return true;
    return false;
}

static enum mode_status read_mapping(struct reader *r, yaml_node_t *node, const char *prefix)
{
    enum mode_status st = MODE_OK;
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top && !st; p++) {
        yaml_node_t *k = yaml_document_get_node(&r->doc, p->key), *v = yaml_document_get_node(&r->doc, p->value);
        if (k->type != YAML_SCALAR_NODE)
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: a key must be a string", r->what, line_of(k));
        for (yaml_node_pair_t *q = node->data.mapping.pairs.start; q < p; q++) {
            yaml_node_t *earlier = yaml_document_get_node(&r->doc, q->key);
            if (earlier->type == YAML_SCALAR_NODE && strcmp(scalar(earlier), scalar(k)) == 0)
                return MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: the key \"%s\" was given before, in line %d", r->what,
                                 line_of(k), scalar(k), line_of(earlier));
        }
        const size_t section = strcspn(scalar(k), ".");
        if (scalar(k)[section])
            return MODE_FAIL(r->err, MODE_E_CONFIG,
                             "%s:%d: the key \"%s\" belongs in a section, as \"%s\" below \"%.*s\"", r->what,
                             line_of(k), scalar(k), scalar(k) + section + 1, (int)section, scalar(k));
        char *path = mode_xasprintf("%s%s", prefix, scalar(k));
        size_t i = 0;
        while (i < N_KEYS && strcmp(keys[i].path, path) != 0) i++;
        if (i < N_KEYS) {
            st = read_key(r, i, v);
        } else if (strcmp(path, "model") == 0) {
            r->model_given = true;
            st = mode_model_config_read(&r->spec->model_config, &r->spec->preprocess_config, &r->doc, v,
                                        r->spec->folder, r->what, r->err);
        } else if (strcmp(path, "train.betas") == 0) {
            st = read_betas(r, v);
        } else if (strcmp(path, "experts_for") == 0) {
            st = read_experts_for(r, v);
        } else if (*prefix == 0 && is_section(path)) {
            if (v->type != YAML_MAPPING_NODE) {
                st = MODE_FAIL(r->err, MODE_E_CONFIG, "%s:%d: %s must be a section with keys of its own", r->what,
                               line_of(v), path);
            } else {
                char *below = mode_xasprintf("%s.", path);
                st = read_mapping(r, v, below);
                free(below);
            }
        } else {
            st = fail_unknown(r, path, line_of(k));
        }
        free(path);
    }
    return st;
}

static enum mode_status set_defaults(struct reader *r)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        if (r->given[i]) continue;
        enum mode_status st = MODE_OK;
        if (!keys[i].value)
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: the key \"%s\" is missing (%s)", r->what, keys[i].path,
                             keys[i].help);
        if (strcmp(keys[i].value, "=seed") == 0) {
            *(uint64_t *)(void *)((char *)r->spec + keys[i].offset) = r->spec->seed; /* `seed` comes first */
        } else if (keys[i].type == LIST || keys[i].type == PATHS) {
            char *words = mode_xstrdup(keys[i].value), *save = NULL;
            for (char *w = strtok_r(words, ";", &save); w && !st; w = strtok_r(NULL, ";", &save))
                st = set_value(r, &keys[i], w, 0);
            free(words);
        } else {
            st = set_value(r, &keys[i], keys[i].value, 0);
        }
        if (st) return st;
    }
    return MODE_OK;
}

static bool given(const struct reader *r, const char *path)
{
    for (size_t i = 0; i < N_KEYS; i++)
        if (strcmp(keys[i].path, path) == 0) return r->given[i];
    return false;
}

static enum mode_status fail_cache(const char *key, const char *id, const char *dir, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_NOINPUT,
                     "%s: %s is not where the coordinator looks for it, %s. HINT: `mode run`, the coordinator and the "
                     "workers must have the same MODE_CACHE (or HOME)",
                     key, id, dir);
}

bool mode_spec_awaits_init(const struct mode_spec *s)
{
    return s->train.init_hub && !mode_file_exists(s->train.init);
}

static enum mode_status check_init_fetched(const struct mode_spec *s, struct mode_error *err)
{
    return mode_spec_awaits_init(s) ? fail_cache("train.init", s->train.init_hub, s->train.init, err) : MODE_OK;
}

/* The default of `model` is the config of train.init's folder. */
static enum mode_status take_model_of_init(struct reader *r)
{
    struct mode_spec *s = r->spec;
    struct stat sb;
    enum mode_status st = check_init_fetched(s, r->err);
    if (st) return st;
    if (!s->train.init[0] || (stat(s->train.init, &sb) == 0 && !S_ISDIR(sb.st_mode)))
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: the key \"model\" is missing (an open_clip model config: its name, its JSON file or the "
                         "config itself)%s",
                         r->what,
                         s->train.init[0] ? "; train.init is a file of weights, which does not contain it" : "");
    char *what = mode_xasprintf("%s: train.init", r->what);
    st = mode_model_config_found(&s->model_config, &s->preprocess_config, s->train.init, what, r->err);
    free(what);
    return st;
}

/* The keys of the cooldown need its schedule, which needs the number of steps. */
static enum mode_status check_cooldown(const struct reader *r)
{
    static const char *const own[] = {"train.cooldown_steps", "train.cooldown_power", "train.cooldown_end"};
    const struct mode_spec *s = r->spec;
    enum mode_schedule_kind kind = MODE_SCHEDULE_COSINE;
    mode_schedule_named(&kind, s->train.schedule);
    const bool cools = kind == MODE_SCHEDULE_CONSTANT_COOLDOWN;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!cools && given(r, own[i]))
            return MODE_FAIL(r->err, MODE_E_CONFIG,
                             "%s: %s is given, and train.schedule is %s, which has no cooldown. HINT: schedule: "
                             "constant_cooldown",
                             r->what, own[i], s->train.schedule);
    if (cools && s->train.cooldown_steps == 0)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.schedule is constant_cooldown and train.cooldown_steps %s; expected in how many "
                         "steps, the last of the schedule, the learning rate falls",
                         r->what, given(r, own[0]) ? "is 0" : "is missing");
    if (s->train.cooldown_end > s->train.lr)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.cooldown_end is %g, above train.lr (%g); the learning rate would rise", r->what,
                         s->train.cooldown_end, s->train.lr);
    return MODE_OK;
}

/* The fork point must lie after the start. It may be 0 only with train.init and only if the key is given: a missing key
 * does not mean 0. */
static enum mode_status check_schedule(struct reader *r)
{
    const struct mode_spec *s = r->spec;
    const bool steps = given(r, "train.seed_steps") || given(r, "train.total_steps");
    const bool epochs = given(r, "train.seed_epochs") || given(r, "train.epochs");
    const bool init = s->train.init[0];
    const char *hint = init ? "" : ". HINT: it may be 0 only with train.init, a model to start from";
    if (steps && epochs)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: the schedule is given in steps (seed_steps, total_steps) and in epochs (seed_epochs, "
                         "epochs); give one of the two",
                         r->what);
    const bool begun = s->train.seed_steps > 0 || (init && given(r, "train.seed_steps"));
    if (steps && !(begun && s->train.total_steps > s->train.seed_steps))
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.seed_steps is %llu and train.total_steps %llu; both are needed and the fork point "
                         "must lie before the end%s",
                         r->what, (unsigned long long)s->train.seed_steps, (unsigned long long)s->train.total_steps,
                         begun ? "" : hint);
    const bool started = s->train.seed_epochs > 0 || init;
    if (!steps && !(started && s->train.epochs > s->train.seed_epochs))
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.seed_epochs is %g and train.epochs %g; the fork point must lie after the start and "
                         "before the end%s",
                         r->what, s->train.seed_epochs, s->train.epochs, started ? "" : hint);
    r->spec->train.warmup_given = given(r, "train.warmup_steps");
    uint64_t warmup;
    struct mode_error why;
    enum mode_status st = check_cooldown(r);
    if (st) return st;
    if (steps && mode_spec_warmup(s, s->train.total_steps, &warmup, &why))
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: %s", r->what, why.text);
    return MODE_OK;
}

/* Random weights would stay random. */
static enum mode_status check_locks(const struct reader *r)
{
    const struct mode_spec *s = r->spec;
    const struct {
        const char *key, *number;
        bool on;
    } locks[] = {{"train.lock_image", "train.lock_image_unlocked_groups", s->train.lock_image},
                 {"train.lock_text", "train.lock_text_unlocked_layers", s->train.lock_text}};
    for (int i = 0; i < 2; i++) {
        if (locks[i].on && !s->train.init[0])
            return MODE_FAIL(
                r->err, MODE_E_CONFIG,
                "%s: %s is true, and the model is new: random weights would be locked. HINT: train.init, a "
                "pretrained model to start from",
                r->what, locks[i].key);
        if (!locks[i].on && given(r, locks[i].number))
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: %s is given, and %s is false. HINT: %s: true", r->what,
                             locks[i].number, locks[i].key, strchr(locks[i].key, '.') + 1);
    }
    return MODE_OK;
}

/* Replace Hub names by their folders in the cache, which may not exist yet. */
static enum mode_status place_in_cache(struct reader *r)
{
    struct mode_spec *s = r->spec;
    const char *init = mode_hub_name(s->train.init), *encoder = mode_hub_name(s->encoder.dir);
    if (encoder)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: encoder.dir is \"%s\", expected a folder. HINT: encoder.hub: %s",
                         r->what, s->encoder.dir, encoder);
    if (given(r, "encoder.hub")) {
        free(s->encoder.dir);
        s->encoder.dir = mode_cache_hub(MODE_HUB_ENCODER, s->encoder.hub);
        if (!s->encoder.dir)
            return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: encoder.hub is \"%s\", expected ORG/NAME or ORG/NAME@REVISION",
                             r->what, s->encoder.hub);
    }
    if (!init) return MODE_OK;
    char *dir = mode_cache_hub(MODE_HUB_CLIP, init);
    if (!dir)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.init is \"%s\", expected a path, " MODE_HUB_PREFIX "ORG/NAME or " MODE_HUB_PREFIX
                         "ORG/NAME@REVISION",
                         r->what, s->train.init);
    s->train.init_hub = mode_xstrdup(init);
    free(s->train.init);
    s->train.init = dir;
    return MODE_OK;
}

static enum mode_status fetch_named(const struct reader *r, mode_spec_fetch_fn *fetch)
{
    const struct mode_spec *s = r->spec;
    enum mode_status st = s->encoder.hub[0] ? fetch(MODE_HUB_ENCODER, s->encoder.hub, r->err) : MODE_OK;
    return st || !s->train.init_hub ? st : fetch(MODE_HUB_CLIP, s->train.init_hub, r->err);
}

static enum mode_status check_together(struct reader *r)
{
    const struct mode_spec *s = r->spec;
    if (!mode_spec_is_name(s->name))
        return MODE_FAIL(
            r->err, MODE_E_CONFIG,
            "%s: name is \"%s\"; it must be 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'", r->what,
            s->name);
    struct mode_text_key key;
    struct mode_error why;
    if (s->blur_faces[0] && mode_face_key_parse(&key, s->blur_faces, &why))
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: data.blur_faces: %s", r->what, why.text);
    if (s->data_train.n == 0) return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: data.train names no source", r->what);
    if (given(r, "encoder.dir") == given(r, "encoder.hub"))
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: %s: \"encoder.dir\" (a folder) or \"encoder.hub\" (ORG/NAME); expected one of the two",
                         r->what, given(r, "encoder.dir") ? "both keys are given" : "a key is missing");
    if (mode_text_keys_parse(&(struct mode_text_keys){0}, (const char *const *)s->captions.text_keys.item,
                             s->captions.text_keys.n, &why))
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: captions.text_keys: %s", r->what, why.text);
    struct mode_router_params params;
    if (mode_router_params_parse(&params, s->router_params, &why))
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: ensemble.params: %s", r->what, why.text);
    if (s->train.accumulate > s->train.batch)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.accumulate is %llu, more pieces than train.batch has pairs (%llu)", r->what,
                         (unsigned long long)s->train.accumulate, (unsigned long long)s->train.batch);
    if (given(r, "train.window_shards") && !s->train.by_windows)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.window_shards is given, and train.order is shuffle, which has no windows. HINT: "
                         "order: windows",
                         r->what);
    enum mode_status st = place_in_cache(r);
    if (st) return st;
    if (!given(r, "tokenizer.merges")) {
        free(r->spec->tokenizer_merges);
        r->spec->tokenizer_merges = mode_cache_merges();
        r->spec->merges_by_default = true;
    }
    if (s->cluster.coarse > s->cluster.fine)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: cluster.coarse is %llu and cluster.fine %llu; there cannot be more groups than centres",
                         r->what, (unsigned long long)s->cluster.coarse, (unsigned long long)s->cluster.fine);
    if ((st = check_schedule(r)) || (st = check_locks(r))) return st;
    if (s->train.evaluate_steps > 0 && s->evaluate.tasks.n == 0)
        return MODE_FAIL(r->err, MODE_E_CONFIG,
                         "%s: train.evaluate_steps says how often models are evaluated while they train, and "
                         "evaluate.tasks, which says on what, is not given",
                         r->what);
    for (size_t i = 0; i < s->n_experts_for; i++)
        if (!s->experts_for[i].classes && s->evaluate.tasks.n == 0)
            return MODE_FAIL(r->err, MODE_E_CONFIG,
                             "%s:%d: %s of experts_for is for tasks, and evaluate.tasks, which says where they are, is "
                             "not given. HINT: classes: FILE needs no task",
                             r->what, s->experts_for[i].line, s->experts_for[i].name);
    if (s->train.scale_min > s->train.scale_max)
        return MODE_FAIL(r->err, MODE_E_CONFIG, "%s: train.scale_min %g is larger than train.scale_max %g", r->what,
                         s->train.scale_min, s->train.scale_max);
    return MODE_OK;
}

/* may_await: a model on the Hub that train.init names may be missing. */
static enum mode_status parse(struct mode_spec *spec, const char *text, const char *folder, const char *what,
                              mode_spec_fetch_fn *fetch, bool may_await, struct mode_error *err)
{
    *spec = (struct mode_spec){.folder = mode_xstrdup(folder), .text = mode_xstrdup(text)};
    struct reader r = {.spec = spec, .what = what, .err = err};
    enum mode_status st = MODE_OK;
    yaml_parser_t parser;
    bool have_doc = false;
    MODE_ASSERT(yaml_parser_initialize(&parser));
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    if (!yaml_parser_load(&parser, &r.doc)) {
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: not YAML: %s", what, (int)parser.problem_mark.line + 1,
                       parser.problem ? parser.problem : "cannot be read");
        goto out;
    }
    have_doc = true;
    yaml_node_t *root = yaml_document_get_root_node(&r.doc);
    if (!root || root->type != YAML_MAPPING_NODE) {
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: a run spec is a list of keys (docs/RUN.md)", what);
        goto out;
    }
    if ((st = read_mapping(&r, root, ""))) goto out;
    yaml_document_t more;
    if (yaml_parser_load(&parser, &more)) {
        yaml_node_t *second = yaml_document_get_root_node(&more);
        if (second)
            st = MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: a second document begins; a run spec is a single one", what,
                           line_of(second));
        yaml_document_delete(&more);
    } else {
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: not YAML: %s", what, (int)parser.problem_mark.line + 1,
                       parser.problem ? parser.problem : "cannot be read");
    }
    if (st) goto out;
    if ((st = set_defaults(&r))) goto out;
    if ((st = check_together(&r)) || (fetch && (st = fetch_named(&r, fetch)))) goto out;
    if (!r.model_given && !(may_await && mode_spec_awaits_init(spec))) st = take_model_of_init(&r);
    if (!st && spec->model_config && !given(&r, "train.patch_dropout"))
        spec->train.patch_dropout = mode_model_config_patch_dropout(spec->model_config);
out:
    if (have_doc) yaml_document_delete(&r.doc);
    yaml_parser_delete(&parser);
    if (st) mode_spec_clear(spec);
    return st;
}

enum mode_status mode_spec_parse(struct mode_spec *spec, const char *text, const char *folder, const char *what,
                                 struct mode_error *err)
{
    return parse(spec, text, folder, what, NULL, false, err);
}

enum mode_status mode_spec_load(struct mode_spec *spec, const char *path, mode_spec_fetch_fn *fetch,
                                struct mode_error *err)
{
    char *text = NULL, real[PATH_MAX];
    size_t size;
    *spec = (struct mode_spec){0};
    enum mode_status st = mode_file_read(path, MAX_SPEC_BYTES, &text, &size, err);
    if (st) return st;
    if (strlen(text) != size) {
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: not a text file (it has a NUL byte)", path);
    } else if (!realpath(path, real)) {
        st = MODE_FAIL(err, MODE_E_IO, "%s: %s", path, strerror(errno));
    } else {
        *strrchr(real, '/') = 0;
        st = parse(spec, text, real[0] ? real : "/", path, fetch, true, err);
    }
    free(text);
    return st;
}

static void list_clear(struct mode_spec_list *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->item[i]);
    free(list->item);
}

void mode_spec_clear(struct mode_spec *s)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        void *field = (char *)s + keys[i].offset;
        if (keys[i].type == LIST || keys[i].type == PATHS)
            list_clear(field);
        else if (keys[i].type == STR || keys[i].type == PATH || keys[i].type == WORD)
            free(*(char **)field);
    }
    for (size_t i = 0; i < s->n_experts_for; i++) {
        free(s->experts_for[i].name);
        free(s->experts_for[i].classes);
        list_clear(&s->experts_for[i].tasks);
    }
    free(s->experts_for);
    free(s->folder);
    free(s->text);
    free(s->model_config);
    free(s->preprocess_config);
    free(s->train.init_hub);
    *s = (struct mode_spec){0};
}

void mode_spec_list_copy(struct mode_spec_list *to, const struct mode_spec_list *from)
{
    for (size_t i = 0; i < from->n; i++) mode_spec_list_add(to, mode_xstrdup(from->item[i]));
}

void mode_spec_list_clear(struct mode_spec_list *list)
{
    list_clear(list);
    *list = (struct mode_spec_list){0};
}

/* dirs: of evaluate.tasks. */
static enum mode_status check_tasks(const struct mode_spec *spec, const struct mode_spec_list *dirs,
                                    struct mode_error *err)
{
    struct mode_spec_list names = {0};
    struct mode_spec_task *task = mode_xcalloc(dirs->n + 1, sizeof *task);
    enum mode_status st = MODE_OK;
    for (size_t t = 0; t < dirs->n && !st; t++) {
        size_t n = strlen(dirs->item[t]);
        while (n > 1 && dirs->item[t][n - 1] == '/') dirs->item[t][--n] = 0;
        task[t].name = mode_path_base(dirs->item[t]);
        st = mode_evalset_known_kind(&task[t].kind, dirs->item[t], err);
        if (st) mode_error_prefix(err, st, "evaluation task %s", task[t].name);
    }
    for (size_t j = 0; j < spec->n_experts_for && !st; j++) {
        const struct mode_spec_for *x = &spec->experts_for[j];
        st = x->classes ? mode_spec_for_names(&names, x, err) : mode_spec_for_check(x, task, dirs->n, err);
    }
    mode_spec_list_clear(&names);
    free(task);
    return st;
}

static bool has_encoder(const struct mode_spec *spec)
{
    char *config = mode_path_join(spec->encoder.dir, "config.json");
    const bool yes = mode_file_exists(config);
    free(config);
    return yes;
}

bool mode_spec_awaits_encoder(const struct mode_spec *spec)
{
    return spec->encoder.hub[0] && !has_encoder(spec);
}

enum mode_status mode_spec_check(const struct mode_spec *spec, bool fetched, struct mode_error *err)
{
    if (fetched && mode_spec_awaits_encoder(spec))
        return fail_cache("encoder.hub", spec->encoder.hub, spec->encoder.dir, err);
    if (!spec->encoder.hub[0] && !has_encoder(spec))
        return MODE_FAIL(err, MODE_E_NOINPUT, "encoder.dir: %s holds no Hugging Face encoder (config.json is missing)",
                         spec->encoder.dir);
    if (!mode_file_exists(spec->tokenizer_merges) && spec->merges_by_default) {
        char *models = mode_path_folder(spec->tokenizer_merges);
        enum mode_status none = MODE_FAIL(err, MODE_E_NOINPUT,
                                          "tokenizer.merges: the spec names none, and %s does not exist. HINT: "
                                          "deploy/fetch-models.sh %s (containers: docker compose run --rm models)",
                                          spec->tokenizer_merges, models);
        free(models);
        return none;
    }
    if (!mode_file_exists(spec->tokenizer_merges))
        return MODE_FAIL(err, MODE_E_NOINPUT, "tokenizer.merges: %s does not exist", spec->tokenizer_merges);
    if (spec->train.algorithms[0] && !mode_file_exists(spec->train.algorithms))
        return MODE_FAIL(err, MODE_E_NOINPUT, "train.algorithms: %s does not exist", spec->train.algorithms);
    struct mode_spec_list tasks;
    enum mode_status st = mode_spec_tasks(&spec->evaluate.tasks, "evaluate.tasks", &tasks, NULL, err);
    if (!st) st = check_tasks(spec, &tasks, err);
    mode_spec_list_clear(&tasks);
    if (st || !spec->train.init[0] || (!fetched && mode_spec_awaits_init(spec))) return st;
    struct mode_given init;
    if ((st = check_init_fetched(spec, err))) return st;
    st = mode_given_find(&init, spec->train.init, err);
    if (!st) st = mode_given_agree(&init, spec->model_config, spec->preprocess_config, err);
    mode_given_clear(&init);
    return st ? mode_error_prefix(err, st, "train.init") : MODE_OK;
}

enum mode_status mode_spec_steps(const struct mode_spec *spec, uint64_t n_pairs, uint64_t given_steps,
                                 uint64_t *seed_steps, uint64_t *total_steps, struct mode_error *err)
{
    *seed_steps = spec->train.seed_steps;
    *total_steps = spec->train.total_steps;
    bool no_seed = *seed_steps == 0;
    if (!*total_steps) {
        double per_epoch = (double)n_pairs / (double)spec->train.batch;
        *seed_steps = (uint64_t)llround(spec->train.seed_epochs * per_epoch);
        *total_steps = (uint64_t)llround(spec->train.epochs * per_epoch);
        no_seed = !(spec->train.seed_epochs > 0);
    }
    if (n_pairs == 0)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "no pair was kept; `mode reconcile` tells what became of the samples. HINT: are the captions "
                         "where captions.text_keys looks for them?");
    if (n_pairs < spec->train.batch)
        return MODE_FAIL(err, MODE_E_CONFIG, "only %llu pair%s kept, fewer than train.batch = %llu",
                         (unsigned long long)n_pairs, n_pairs == 1 ? " was" : "s were",
                         (unsigned long long)spec->train.batch);
    if ((*seed_steps < 1 && !no_seed) || *seed_steps >= *total_steps) /* a given 0 is valid, a rounded one is not */
        return MODE_FAIL(
            err, MODE_E_CONFIG,
            "the schedule has %llu seed steps of %llu in all (%llu kept pairs, batch %llu); the fork point "
            "must lie after the start and before the end",
            (unsigned long long)*seed_steps, (unsigned long long)*total_steps, (unsigned long long)n_pairs,
            (unsigned long long)spec->train.batch);
    if (*seed_steps < given_steps)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "train.init: %s is at step %llu of its schedule, beyond the fork point (%llu); expected "
                         "train.seed_steps of at least that. HINT: the weights' file itself, in place of the folder, "
                         "begins at step 0 with new moments",
                         spec->train.init, (unsigned long long)given_steps, (unsigned long long)*seed_steps);
    return MODE_OK;
}

enum mode_status mode_spec_warmup(const struct mode_spec *spec, uint64_t total_steps, uint64_t *warmup,
                                  struct mode_error *err)
{
    const uint64_t most = mode_warmup_most(total_steps);
    *warmup = spec->train.warmup_steps;
    if (!spec->train.warmup_given && *warmup > most) *warmup = most;
    if (*warmup > 0 && *warmup >= total_steps)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "train.warmup_steps is %llu and the schedule has %llu step%s: the learning rate would rise to "
                         "its end. HINT: leave the key out (2000, at most a tenth of the schedule), or give less",
                         (unsigned long long)*warmup, (unsigned long long)total_steps, MODE_PLURAL(total_steps));
    if (spec->train.cooldown_steps > total_steps - *warmup)
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "train.cooldown_steps is %llu and the warm-up has %llu step%s; expected at most the %llu of "
                         "the schedule together. HINT: they are steps, not epochs",
                         (unsigned long long)spec->train.cooldown_steps, (unsigned long long)*warmup,
                         MODE_PLURAL(*warmup), (unsigned long long)total_steps);
    return MODE_OK;
}
