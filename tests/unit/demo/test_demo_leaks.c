/* Merging, leaks, caps and classes on small sets with given signatures. */
#include "data/leaks.h"
#include "data/smoke.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A picture of one grey; signatures differ unless made equal. */
static struct mode_demo_item *add(struct mode_demo_set *set, bool held, int grey, const char *text)
{
    struct mode_demo_item *it = mode_demo_item_add(set, held ? MODE_DEMO_TANGO : MODE_DEMO_BREEZE);
    it->held = held;
    it->category = mode_xstrdup("c");
    it->sig.pixels[0] = (uint64_t)set->n;
    it->sig.gradient = (uint64_t)set->n;
    memset(it->sig.thumb, grey, MODE_DEMO_THUMB);
    for (int c = 0; c < 3; c++) it->sig.thumb_sum[c] = grey * MODE_DEMO_THUMB / 3;
    mode_demo_texts_add(&it->texts, text);
    return it;
}

static void test_same_pixels_become_one_with_all_captions(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    for (int i = 0; i < 3; i++) add(&set, false, 0, i == 0 ? "first" : i == 1 ? "second" : "third")->sig.pixels[0] = 7;
    add(&set, false, 0, "another");
    add(&set, true, 0, "other side")->sig.pixels[0] = 7; /* a held-out picture is not merged into training */
    mode_demo_merge_same(&set);
    assert_int_equal(set.items[0].fate, MODE_DEMO_KEPT);
    assert_int_equal(set.items[0].texts.n, 3);
    assert_string_equal(set.items[0].texts.text[2], "third");
    assert_int_equal(set.items[1].fate, MODE_DEMO_SAME_PICTURE);
    assert_int_equal(set.items[2].fate, MODE_DEMO_SAME_PICTURE);
    assert_int_equal(set.items[3].fate, MODE_DEMO_KEPT);
    assert_int_equal(set.items[4].fate, MODE_DEMO_KEPT);
    mode_demo_set_clear(&set);
}

static void test_one_picture_with_two_answers_leaves_the_task(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    static const char *const names[] = {"Norway", "Svalbard", "Togo", "Togo"};
    for (int i = 0; i < 4; i++) {
        struct mode_demo_item *it = add(&set, true, 0, names[i]);
        it->sig.pixels[0] = i < 2 ? 1 : 2;
        mode_demo_item_label(it, MODE_DEMO_TASK_FLAGS, names[i]);
    }
    mode_demo_merge_same(&set);
    assert_null(set.items[0].label[MODE_DEMO_TASK_FLAGS]);
    assert_string_equal(set.items[2].label[MODE_DEMO_TASK_FLAGS], "Togo");
    mode_demo_set_clear(&set);
}

static void test_near_pictures_leave_training(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    add(&set, true, 100, "held");
    add(&set, false, 107, "near: root mean square 7");
    add(&set, false, 92, "not near: 8");
    struct mode_demo_item *checks = add(&set, false, 100, "same mean, 9 away everywhere");
    for (int i = 0; i < MODE_DEMO_THUMB; i++) checks->sig.thumb[i] = (uint8_t)((i / 3) % 2 ? 109 : 91);
    struct mode_demo_item *spot = add(&set, false, 100, "30 away in a twentieth: 6.7");
    for (int i = 0; i < 87; i++) {
        spot->sig.thumb[i] = 130;
        spot->sig.thumb_sum[i % 3] += 30;
    }
    struct mode_demo_item *alike = add(&set, false, 250, "same signature");
    alike->sig.gradient = set.items[0].sig.gradient;
    mode_demo_drop_leaks(&set);
    assert_int_equal(set.items[0].fate, MODE_DEMO_KEPT); /* a held-out picture is never dropped */
    assert_int_equal(set.items[1].fate, MODE_DEMO_LEAK_NEAR);
    assert_int_equal(set.items[2].fate, MODE_DEMO_KEPT);
    assert_int_equal(set.items[3].fate, MODE_DEMO_KEPT);
    assert_int_equal(set.items[4].fate, MODE_DEMO_LEAK_NEAR);
    assert_int_equal(set.items[5].fate, MODE_DEMO_LEAK_SIGNATURE);
    mode_demo_set_clear(&set);
}

static void test_series_are_compared_only_with_others(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    add(&set, true, 10, "held folder")->series = MODE_DEMO_SERIES_FOLDER;
    add(&set, true, 200, "held flag")->series = MODE_DEMO_SERIES_FLAG;
    add(&set, false, 10, "training folder")->series = MODE_DEMO_SERIES_FOLDER;
    add(&set, false, 10, "no folder");
    add(&set, false, 200, "a flag of another source");
    mode_demo_drop_leaks(&set);
    assert_int_equal(set.items[2].fate, MODE_DEMO_KEPT);
    assert_int_equal(set.items[3].fate, MODE_DEMO_LEAK_NEAR);
    assert_int_equal(set.items[4].fate, MODE_DEMO_KEPT);
    mode_demo_set_clear(&set);
}

static void test_a_caption_keeps_its_first_twelve(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    for (int i = 0; i < 15; i++) add(&set, false, i, i % 2 ? "Button" : "button");
    add(&set, false, 0, "knob");
    add(&set, true, 0, "button");
    mode_demo_cap_captions(&set);
    for (int i = 0; i < 17; i++)
        assert_int_equal(set.items[i].fate, i >= 12 && i < 15 ? MODE_DEMO_CAPTION_TAKEN : MODE_DEMO_KEPT);
    mode_demo_set_clear(&set);
}

static void test_small_classes_and_shared_captions_leave(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    int fewest = mode_demo_task_info[MODE_DEMO_TASK_FOLDER_COLOUR].fewest;
    for (int i = 0; i < 2 * fewest - 1; i++) {
        struct mode_demo_item *it = add(&set, true, i, i == 1 ? "One" : i == 2 ? "one" : "unique");
        mode_demo_item_label(it, MODE_DEMO_TASK_FOLDER_COLOUR, i < fewest ? "red" : "blue");
        if (i < 4) mode_demo_item_label(it, MODE_DEMO_TASK_RETRIEVAL_EMOJI, "");
    }
    mode_demo_texts_clear(&set.items[0].texts);
    mode_demo_texts_add(&set.items[0].texts, "alone");
    mode_demo_prune_classes(&set);
    assert_non_null(set.items[0].label[MODE_DEMO_TASK_FOLDER_COLOUR]);
    assert_null(set.items[fewest].label[MODE_DEMO_TASK_FOLDER_COLOUR]);
    assert_non_null(set.items[0].label[MODE_DEMO_TASK_RETRIEVAL_EMOJI]);
    assert_null(set.items[1].label[MODE_DEMO_TASK_RETRIEVAL_EMOJI]);
    assert_null(set.items[2].label[MODE_DEMO_TASK_RETRIEVAL_EMOJI]);
    assert_non_null(set.items[3].label[MODE_DEMO_TASK_RETRIEVAL_EMOJI]);
    mode_demo_set_clear(&set);
}

static void test_smoke_bounds_every_task_and_source(void **state)
{
    (void)state;
    struct mode_demo_set set = {0};
    for (int i = 0; i < 600; i++) {
        struct mode_demo_item *it = add(&set, i % 2, 0, "text");
        if (i % 2) mode_demo_item_label(it, MODE_DEMO_TASK_ICON_NAMES, "name");
    }
    mode_demo_choose_smoke(&set);
    int train = 0, held = 0;
    for (int i = 0; i < 600; i++)
        if (set.items[i].fate == MODE_DEMO_KEPT) (*(i % 2 ? &held : &train))++;
    assert_int_equal(held, MODE_DEMO_SMOKE_TASK_MAX);
    assert_in_range(train, 1, 299);
    mode_demo_set_clear(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_pixels_become_one_with_all_captions),
        cmocka_unit_test(test_one_picture_with_two_answers_leaves_the_task),
        cmocka_unit_test(test_near_pictures_leave_training),
        cmocka_unit_test(test_series_are_compared_only_with_others),
        cmocka_unit_test(test_a_caption_keeps_its_first_twelve),
        cmocka_unit_test(test_small_classes_and_shared_captions_leave),
        cmocka_unit_test(test_smoke_bounds_every_task_and_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
