#include "progress.h"

#include "base/clock.h"
#include "base/str.h"
#include "msg/status_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINE_EVERY_S 30
#define BAR          24

void progress_open(struct progress *p, FILE *out, bool no_bars)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    *p = (struct progress){.out = out, .spoke_s = mode_clock_s()};
    p->terminal = !no_bars && isatty(fileno(out)) && term && strcmp(term, "dumb") != 0;
    p->colour = p->terminal && !(no_colour && *no_colour);
}

void progress_time(char *out, size_t n, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e8)) {
        snprintf(out, n, "?");
        return;
    }
    long s = lround(seconds);
    if (s >= 3600)
        snprintf(out, n, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, n, "%ld:%02ld", s / 60, s % 60);
}

static void describe(struct mode_str *line, const Mode__Stage *s)
{
    mode_str_printf(line, "%llu/%llu", (unsigned long long)s->done, (unsigned long long)s->total);
    if (s->cached) mode_str_printf(line, " (%llu found done)", (unsigned long long)s->cached);
    if (s->leased) {
        if (s->live_total && s->unit && *s->unit)
            mode_str_printf(line, "  %llu/%llu %s", (unsigned long long)s->live_done, (unsigned long long)s->live_total,
                            s->unit);
        if (s->live_rate > 0) mode_str_printf(line, "  %.3g/s", s->live_rate);
        if (s->has_eta_s) {
            char eta[32];
            progress_time(eta, sizeof eta, s->eta_s);
            mode_str_printf(line, "  %s left", eta);
        }
    }
    if (s->retries) mode_str_printf(line, "  %llu tried again", (unsigned long long)s->retries);
    if (s->quarantined) mode_str_printf(line, "  %llu given up", (unsigned long long)s->quarantined);
    if (s->done == s->total && s->rows_in > 0) {
        mode_str_printf(line, "  %llu row%s", (unsigned long long)s->rows_out, MODE_PLURAL(s->rows_out));
        /* in a training these are the pairs of other experts */
        if (s->rejects && strcmp(s->service, "train") != 0)
            mode_str_printf(line, ", %llu left out", (unsigned long long)s->rejects);
    }
    if (s->wait)
        mode_str_printf(line, "  waits for a worker (%s)", s->service);
    else if (s->message && *s->message && !s->leased && s->done < s->total)
        mode_str_printf(line, "  %s", s->message);
}

static int width_of(FILE *out)
{
    struct winsize w;
    return ioctl(fileno(out), TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 100;
}

static void draw(struct progress *p, const Mode__Run *run)
{
    struct mode_str text = {0}, line = {0};
    int width = width_of(p->out) - 1;
    if (p->lines) mode_str_printf(&text, "\033[%dA", p->lines);
    p->lines = 0;
    for (size_t i = 0; i < run->n_stages; i++) {
        const Mode__Stage *s = run->stages[i];
        double share = s->total ? s->done_units / (double)s->total : 1;
        int full = (int)(share * BAR + 1e-9);
        const char *colour = s->quarantined || s->failed ? "\033[31m"
                             : s->done == s->total       ? "\033[32m"
                             : s->leased                 ? "\033[36m"
                                                         : "";
        mode_str_reset(&line);
        mode_str_printf(&line, "  %-14s ", s->name);
        size_t head = line.len;
        for (int b = 0; b < BAR; b++) mode_str_add_char(&line, b < full ? '#' : s->leased && b == full ? '>' : '.');
        mode_str_add_cstr(&line, "  ");
        describe(&line, s);
        int n = (int)line.len < width ? (int)line.len : width;
        if (p->colour && *colour && n > (int)head + BAR)
            mode_str_printf(&text, "\033[2K%.*s%s%.*s\033[0m%.*s\n", (int)head, line.data, colour, BAR,
                            line.data + head, n - (int)head - BAR, line.data + head + BAR);
        else
            mode_str_printf(&text, "\033[2K%.*s\n", n, line.data);
        p->lines++;
    }
    char elapsed[32];
    progress_time(elapsed, sizeof elapsed, run->elapsed_s);
    mode_str_printf(&text, "\033[2K  run %s: %s, %s\n", run->name, mode_run_state_name(run->state), elapsed);
    p->lines++;
    fwrite(text.data, 1, text.len, p->out);
    fflush(p->out);
    mode_str_clear(&text);
    mode_str_clear(&line);
}

static void speak(struct progress *p, const Mode__Run *run)
{
    bool regular = mode_clock_s() - p->spoke_s >= LINE_EVERY_S;
    struct mode_str line = {0};
    for (size_t i = 0; i < run->n_stages && i < PROGRESS_STAGES; i++) {
        const Mode__Stage *s = run->stages[i];
        bool ended = s->done + s->failed + s->quarantined + s->cancelled == s->total;
        bool begun = ended || s->leased;
        const char *what = NULL;
        if (ended && !p->ended[i])
            what = s->done == s->total ? "done" : "ended";
        else if (begun && !p->begun[i])
            what = "started";
        else if (regular && s->leased)
            what = "running";
        p->begun[i] |= begun;
        p->ended[i] = ended;
        if (!what) continue;
        char elapsed[32];
        progress_time(elapsed, sizeof elapsed, run->elapsed_s);
        mode_str_reset(&line);
        mode_str_printf(&line, "%8s  %-14s %-8s ", elapsed, s->name, what);
        describe(&line, s);
        fprintf(p->out, "%s\n", line.data);
    }
    if (regular) p->spoke_s = mode_clock_s();
    fflush(p->out);
    mode_str_clear(&line);
}

void progress_show(struct progress *p, const Mode__Run *run)
{
    if (p->terminal)
        draw(p, run);
    else
        speak(p, run);
}

void progress_say(struct progress *p, const char *text)
{
    if (p->terminal) fprintf(p->out, "\033[2K");
    fprintf(p->out, "  %s\n", text);
    fflush(p->out);
    p->lines = 0;
}
