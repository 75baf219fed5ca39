#include "open_clip_command.h"

#include "base/path.h"
#include "base/str.h"
#include "spec_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char blanks[] = " \t\r\n";

static void add_word(char ***list, size_t *n, char *word)
{
    *list = mode_xrealloc(*list, (*n + 1) * sizeof **list);
    (*list)[(*n)++] = word;
}

static void free_words(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++) free(list[i]);
    free(list);
}

/* The next word of *text, with quotes and backslashes removed as a shell does; NULL at the end. Nothing is expanded. */
static enum mode_status next_word(char **word, const char **text, struct mode_error *err)
{
    struct mode_str s = {0};
    const char *p = *text;
    char quote = 0;
    bool any = false;
    for (;; p++) {
        if (!quote && p[0] == '\\' && p[1] == '\n') {
            p++; /* the line goes on */
        } else if (!*p || (!quote && strchr(blanks, *p))) {
            if (any || !*p) break;
        } else if (!quote && (*p == '\'' || *p == '"')) {
            quote = *p;
            any = true;
        } else if (quote && *p == quote) {
            quote = 0;
        } else {
            if (*p == '\\' && p[1] && quote != '\'' && (!quote || strchr("\"\\$`\n", p[1]))) p++;
            mode_str_add_char(&s, *p);
            any = true;
        }
    }
    *text = p;
    *word = any ? mode_xstrdup(s.data ? s.data : "") : NULL;
    mode_str_clear(&s);
    return quote ? MODE_FAIL(err, MODE_E_USAGE, "the command of open_clip has a %c without its end", quote) : MODE_OK;
}

/* One argument is the whole command. Backslashes with a blank behind them, which a shell passes on, are left out. */
static enum mode_status take_words(struct open_clip_command *c, char *const *words, size_t n, struct mode_error *err)
{
    if (n == 1 && strpbrk(words[0], blanks)) {
        const char *text = words[0];
        for (;;) {
            char *word;
            enum mode_status st = next_word(&word, &text, err);
            if (word) add_word(&c->word, &c->n_words, word);
            if (st || !word) return st;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (words[i][strspn(words[i], "\\ \t\r\n")] || !words[i][0])
            add_word(&c->word, &c->n_words, mode_xstrdup(words[i]));
    return MODE_OK;
}

static void add_quoted(struct mode_str *s, const char *word)
{
    char *quoted = spec_text_shell(word);
    mode_str_printf(s, "%s%s", s->len ? " " : "", quoted);
    free(quoted);
}

static bool is_program(const char *word)
{
    static const char *const programs[] = {"open_clip_train.main", "training.main", "src.training.main",
                                           "src.open_clip_train.main", "main.py"};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        if (strcmp(mode_path_base(word), programs[i]) == 0) return true;
    return false;
}

static bool is_option(const char *word) /* argparse: anything with a dash that is not a negative number */
{
    char *end;
    if (word[0] != '-' || !word[1]) return false;
    (void)strtod(word, &end);
    return *end != '\0';
}

/* The value of a launcher's option at word i, `--name value`, `--name=value` or `-n value`; NULL: another option. */
static const char *launcher_value(const struct open_clip_command *c, size_t i, size_t end, const char *const *names)
{
    char *word = mode_xstrdup(c->word[i]);
    const char *found = NULL;
    for (char *p = word; *p && *p != '='; p++)
        if (*p == '_') *p = '-'; /* torchrun knows both */
    for (; *names && !found; names++) {
        const size_t n = strlen(*names);
        if (strncmp(word, *names, n) != 0) continue;
        if (word[n] == '=') found = c->word[i] + n + 1;
        if (!word[n] && i + 1 < end) found = c->word[i + 1];
    }
    free(word);
    return found;
}

/* A count of the launcher; 0: not a number. An elastic "1:4" is its maximum. */
static uint64_t count_of(const char *text)
{
    const char *last = strrchr(text, ':');
    char *end;
    const unsigned long long n = strtoull(last ? last + 1 : text, &end, 10);
    return *end || n > 1000000 ? 0 : n;
}

/* NAME=VALUE in front of a command. It may be a key and is not shown. */
static bool is_setting(const char *word)
{
    const size_t n = strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    return n && word[n] == '=';
}

static bool is_starter(const char *word)
{
    const char *base = mode_path_base(word);
    return strcmp(base, "srun") == 0 || strcmp(base, "mpirun") == 0 || strcmp(base, "horovodrun") == 0;
}

/* The number of processes that words [0, end) start. */
static void read_launcher(struct open_clip_command *c, size_t end)
{
    static const char *const per_node[] = {"--nproc-per-node", NULL}, *const nodes[] = {"--nnodes", NULL},
                             *const tasks[] = {"--ntasks", "-n", "-np", "--np", NULL},
                             *const node_tasks[] = {"--ntasks-per-node", NULL},
                             *const hosts[] = {"--nodes", "-N", NULL};
    const char *torch[2] = {NULL, NULL}, *slurm[3] = {NULL, NULL, NULL}, *world = NULL, *v;
    bool torchrun = false, started = false;
    struct mode_str text = {0};
    for (size_t i = 0; i < end; i++) {
        const char *word = c->word[i];
        torchrun |= strncmp(mode_path_base(word), "torchrun", 8) == 0 || strncmp(word, "torch.distributed.", 18) == 0;
        if ((v = launcher_value(c, i, end, per_node))) torch[0] = v;
        if ((v = launcher_value(c, i, end, nodes))) torch[1] = v;
        if ((v = launcher_value(c, i, end, tasks))) slurm[0] = v;
        if ((v = launcher_value(c, i, end, node_tasks))) slurm[1] = v;
        if ((v = launcher_value(c, i, end, hosts))) slurm[2] = v;
        if (strncmp(word, "WORLD_SIZE=", 11) == 0) world = word + 11;
        started |= is_starter(word);
        if (!is_setting(word) && !(strcmp(word, "-m") == 0 && i + 1 == end)) add_quoted(&text, word);
    }
    c->launcher = text.data ? text.data : mode_xstrdup("");
    if (!torchrun && slurm[0]) world = slurm[0];
    const char *each = torchrun ? torch[0] : slurm[1], *many = torchrun ? torch[1] : slurm[2];
    uint64_t n = 1, m = 1;
    if (!torchrun && world) {
        n = count_of(world);
    } else {
        if (each) n = count_of(each);
        if (many && (torchrun || each)) m = count_of(many);
    }
    if (!n || !m)
        c->doubt = mode_xasprintf("\"%s\" of the launcher is not a number",
                                  !n ? (!torchrun && world ? world : each) : many);
    else if (started && !torchrun && !world && !each)
        c->doubt = mode_xasprintf("the launcher names no number of processes");
    n = n ? n : 1;
    m = m ? m : 1;
    c->processes = n * m;
    c->nodes = m;
    c->processes_text = m > 1 ? mode_xasprintf("%llu nodes * %llu GPU%s", (unsigned long long)m, (unsigned long long)n,
                                               MODE_PLURAL(n))
                        : n > 1 ? mode_xasprintf("%llu GPUs", (unsigned long long)n)
                                : mode_xstrdup("");
}

/* Of an option given twice the last counts, as in argparse. */
static struct open_clip_given *add_given(struct open_clip_command *c, const struct open_clip_name *option)
{
    for (size_t i = 0; i < c->n_given; i++)
        if (c->given[i].option == option) {
            free(c->given[i].value);
            free(c->given[i].text);
            c->given[i] = (struct open_clip_given){.option = option};
            return &c->given[i];
        }
    c->given = mode_xrealloc(c->given, (c->n_given + 1) * sizeof *c->given);
    c->given[c->n_given] = (struct open_clip_given){.option = option};
    return &c->given[c->n_given++];
}

/* The option at word *i, with its values; *i becomes the next word. */
static enum mode_status read_option(struct open_clip_command *c, const struct open_clip_name *option, size_t *i,
                                    struct mode_error *err)
{
    struct open_clip_given *g = add_given(c, option);
    char *equals = strchr(c->word[(*i)++], '=');
    struct mode_str text = {0};
    mode_str_printf(&text, "--%s", option->name);
    if (equals && option->values == OPEN_CLIP_FLAG) {
        mode_str_clear(&text);
        return MODE_FAIL(err, MODE_E_USAGE, "open_clip's --%s has no value, and \"%s\" is given", option->name,
                         equals + 1);
    }
    if (equals)
        add_word(&g->value, &g->n, equals + 1);
    else if (option->values != OPEN_CLIP_FLAG)
        while (*i < c->n_words && !is_option(c->word[*i]) && (option->values == OPEN_CLIP_MANY || !g->n))
            add_word(&g->value, &g->n, c->word[(*i)++]);
    for (size_t k = 0; k < g->n; k++) add_quoted(&text, g->value[k]);
    g->text = text.data;
    if (option->values != OPEN_CLIP_FLAG && !g->n)
        return MODE_FAIL(err, MODE_E_USAGE, "open_clip's --%s needs a value", option->name);
    return MODE_OK;
}

/* An option that open_clip does not have, with the words behind it, which may be its values. */
static void take_unknown(struct open_clip_command *c, size_t *i)
{
    struct mode_str text = {0};
    const bool option = is_option(c->word[*i]);
    add_quoted(&text, c->word[(*i)++]);
    while (option && *i < c->n_words && !is_option(c->word[*i])) add_quoted(&text, c->word[(*i)++]);
    add_word(&c->unknown, &c->n_unknown, text.data);
}

enum mode_status open_clip_command_read(struct open_clip_command *c, char *const *words, size_t n,
                                        struct mode_error *err)
{
    *c = (struct open_clip_command){0};
    enum mode_status st = take_words(c, words, n, err);
    if (st) return st;
    size_t program = 0;
    while (program < c->n_words && !is_program(c->word[program])) program++;
    size_t i = program < c->n_words ? program + 1 : 0;
    if (i == 0 && c->n_words && !is_option(c->word[0]))
        return MODE_FAIL(err, MODE_E_USAGE,
                         "the command calls no trainer of open_clip: \"%s ...\"; expected open_clip_train.main, "
                         "training.main or a main.py among its words",
                         c->word[0]);
    if (c->n_words == 0) return MODE_FAIL(err, MODE_E_USAGE, "a command of open_clip is needed after `--`");
    read_launcher(c, i ? program : 0);
    while (!st && i < c->n_words) {
        const char *word = c->word[i];
        const struct open_clip_name *option = strncmp(word, "--", 2) == 0
                                                  ? open_clip_name_find(word + 2, strcspn(word + 2, "="))
                                                  : NULL;
        if (option)
            st = read_option(c, option, &i, err);
        else
            take_unknown(c, &i);
    }
    return st;
}

void open_clip_command_clear(struct open_clip_command *c)
{
    for (size_t i = 0; i < c->n_given; i++) {
        free(c->given[i].value);
        free(c->given[i].text);
    }
    free(c->given);
    free_words(c->unknown, c->n_unknown);
    free_words(c->word, c->n_words);
    free(c->launcher);
    free(c->processes_text);
    free(c->doubt);
    *c = (struct open_clip_command){0};
}

const struct open_clip_given *open_clip_given(const struct open_clip_command *c, const char *name)
{
    for (size_t i = 0; i < c->n_given; i++)
        if (strcmp(c->given[i].option->name, name) == 0) return &c->given[i];
    return NULL;
}

const char *open_clip_value(const struct open_clip_command *c, const char *name, const char *otherwise)
{
    const struct open_clip_given *g = open_clip_given(c, name);
    return g && g->n ? g->value[0] : otherwise;
}
