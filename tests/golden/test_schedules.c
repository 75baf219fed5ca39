/* Learning rates against open_clip's schedulers (make_schedule_goldens.py). */
#include "optim/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void test_open_clips_learning_rates(void **state)
{
    (void)state;
    FILE *f = fopen(MODE_SOURCE_DIR "/tests/golden/schedules.txt", "r");
    char line[256], name[32];
    int n[3] = {0};
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        struct mode_schedule s = {0};
        double step, want;
        if (line[0] == '#') continue;
        if (sscanf(line, "%31s %lf %" SCNu64 " %" SCNu64 " %" SCNu64 " %lf %lf %lf %lf", name, &s.lr, &s.warmup,
                   &s.total, &s.cooldown, &s.power, &s.end, &step, &want) != 9 ||
            !mode_schedule_named(&s.kind, name))
            fail_msg("not a row: %s", line);
        const double got = mode_schedule_lr(&s, step);
        if (!(fabs(got - want) <= 1e-14 * s.lr)) fail_msg("%.17g, expected: %s", got, line);
        n[s.kind]++;
    }
    fclose(f);
    for (int i = 0; i < 3; i++) assert_true(n[i] >= 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_open_clips_learning_rates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
