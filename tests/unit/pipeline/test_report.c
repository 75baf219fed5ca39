/* The report's stylesheet: the colours of the models. */
#include "pipeline/report_parts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { R, G, B };
static const char *const classes[] = {"x0", "x1", "x2", "x3", "x4", "x5", "x6",
                                      "x7", "y0", "y1", "y2", "y3", "xd", "xs"};
enum { N = sizeof classes / sizeof *classes };

/* "#rrggbb" as linear light. */
static void colour(double out[3], const char *hex)
{
    for (int i = 0; i < 3; i++) {
        const char digits[] = {hex[1 + 2 * i], hex[2 + 2 * i], 0};
        const double v = (double)strtol(digits, NULL, 16) / 255;
        out[i] = v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
    }
}

/* The last colour before `end` that the stylesheet gives to the class or variable. */
static void find(double out[3], const char *css, const char *end, const char *what)
{
    const char *found = NULL;
    for (const char *p = strstr(css, what); p && p < end; p = strstr(p + 1, what)) found = p;
    if (!found) fail_msg("the stylesheet has no %s", what);
    colour(out, found + strlen(what));
}

static double contrast(const double a[3], const double b[3])
{
    const double l = 0.2126 * a[R] + 0.7152 * a[G] + 0.0722 * a[B] + 0.05,
                 m = 0.2126 * b[R] + 0.7152 * b[G] + 0.0722 * b[B] + 0.05;
    return l > m ? l / m : m / l;
}

/* OKLab, times 100. */
static void lab(double out[3], const double c[3])
{
    static const double cone[3][3] = {{0.4122214708, 0.5363325363, 0.0514459929},
                                      {0.2119034982, 0.6806995451, 0.1073969566},
                                      {0.0883024619, 0.2817188376, 0.6299787005}},
                        mix[3][3] = {{0.2104542553, 0.7936177850, -0.0040720468},
                                     {1.9779984951, -2.4285922050, 0.4505937099},
                                     {0.0259040371, 0.7827717662, -0.8086757660}};
    double lms[3];
    for (int i = 0; i < 3; i++) lms[i] = cbrt(cone[i][R] * c[R] + cone[i][G] * c[G] + cone[i][B] * c[B]);
    for (int i = 0; i < 3; i++) out[i] = 100 * (mix[i][0] * lms[0] + mix[i][1] * lms[1] + mix[i][2] * lms[2]);
}

/* Distance as somebody sees it: with full colour vision, without red cones, without green ones (Machado et al. 2009). */
static double distance(const double a[3], const double b[3], int eye)
{
    static const double see[3][3][3] = {
        {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
        {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
        {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}}};
    const double *const from[2] = {a, b};
    double seen[2][3], at[2][3];
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 3; i++) {
            const double *m = see[eye][i], v = m[R] * from[k][R] + m[G] * from[k][G] + m[B] * from[k][B];
            seen[k][i] = fmin(1, fmax(0, v));
        }
        lab(at[k], seen[k]);
    }
    return sqrt(pow(at[0][0] - at[1][0], 2) + pow(at[0][1] - at[1][1], 2) + pow(at[0][2] - at[1][2], 2));
}

static void check(const char *css, const char *end, const char *scheme)
{
    static const char *const eyes[] = {"anybody", "protanopes", "deuteranopes"};
    static const double least[] = {12, 7, 7};
    double card[3], c[N][3];
    find(card, css, end, "--card:");
    for (int i = 0; i < N; i++) {
        char what[16];
        snprintf(what, sizeof what, ".%s{--c:", classes[i]);
        find(c[i], css, end, what);
        if (contrast(c[i], card) < 3)
            fail_msg("%s: %s has a contrast of %.2f with the card", scheme, classes[i], contrast(c[i], card));
        for (int k = 0; k < i; k++)
            for (int eye = 0; eye < 3; eye++)
                if (distance(c[i], c[k], eye) < least[eye])
                    fail_msg("%s: %s and %s are alike to %s: %.1f", scheme, classes[i], classes[k], eyes[eye],
                             distance(c[i], c[k], eye));
    }
}

static void test_the_models_have_different_colours(void **state)
{
    (void)state;
    struct mode_str css = {0};
    for (int i = 0; mode_report_css[i]; i++) mode_str_add_cstr(&css, mode_report_css[i]);
    char *dark = strstr(css.data, "dark){.x0");
    assert_non_null(dark);
    /* the page's dark variables come before the light colours: for the light scheme its first ones count */
    char *variables = strstr(css.data, "@media(prefers-color-scheme:dark){:root");
    assert_true(variables && variables < dark);
    check(css.data, css.data + css.len, "dark");
    char *light = mode_xasprintf("%.*s%.*s", (int)(variables - css.data), css.data,
                                 (int)(dark - strchr(variables, '\n')), strchr(variables, '\n'));
    check(light, light + strlen(light), "light");
    free(light);
    mode_str_clear(&css);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_models_have_different_colours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
