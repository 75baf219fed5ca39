/* The hold-out rules: against SHA-1 computed elsewhere, and the property that they exist for: variants of one thing
 * stay on one side. */
#include "data/holdout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_hash_is_the_head_of_sha1(void **state)
{
    (void)state; /* SHA-1("abc") = a9993e36 4706816a ... (FIPS 180) */
    assert_int_equal(mode_demo_hash_mod("abc", 10), 0xa9993e36u % 10);
    assert_int_equal(mode_demo_hash_mod("abc", 0xffffffffu), 0xa9993e36u);
}

static void family_is(const uint32_t *code, int n, const char *expected)
{
    char family[64];
    mode_demo_emoji_family(code, n, family, sizeof family);
    assert_string_equal(family, expected);
}

static void test_emoji_families(void **state)
{
    (void)state;
    const uint32_t woman_judge[] = {0x1f469, 0x1f3fd, 0x200d, 0x2696, 0xfe0f}; /* medium skin tone */
    const uint32_t man_judge[] = {0x1f468, 0x200d, 0x2696, 0xfe0f};
    const uint32_t judge[] = {0x1f9d1, 0x200d, 0x2696};
    family_is(woman_judge, 5, "P\u2696");
    family_is(man_judge, 4, "P\u2696");
    family_is(judge, 3, "P\u2696");
    const uint32_t running[] = {0x1f3c3}, woman_running[] = {0x1f3c3, 0x1f3ff, 0x200d, 0x2640, 0xfe0f};
    family_is(running, 1, "\U0001f3c3");
    family_is(woman_running, 5, "\U0001f3c3");
    const uint32_t family[] = {0x1f468, 0x200d, 0x1f469, 0x200d, 0x1f466}, old[] = {0x1f475, 0x1f3fb};
    family_is(family, 5, "PPK");
    family_is(old, 2, "O");
    assert_true(mode_demo_emoji_has_skin_tone(old, 2));
    assert_false(mode_demo_emoji_has_skin_tone(family, 5));
}

static void test_emoji_rule_agrees_with_known_cases(void **state)
{
    (void)state; /* python3: int(hashlib.sha1(("emo:" + s).encode()).hexdigest()[:8], 16) % 10 */
    assert_true(mode_demo_holdout_emoji("\U0001f34b"));  /* lemon */
    assert_false(mode_demo_holdout_emoji("\U0001f34e")); /* red apple */
}

static void test_clipart_is_held_out_by_family_and_not_in_four_folders(void **state)
{
    (void)state;
    int held = 0;
    char words[32], folders[4][64];
    for (int i = 0; i < 7000; i++) {
        snprintf(words, sizeof words, "drawing %d", i);
        bool is_held = mode_demo_holdout_clipart("food/fruit", words);
        held += is_held;
        snprintf(folders[0], 64, "computer/icons/flat-theme");
        snprintf(folders[1], 64, "signs_and_symbols/flags/asia");
        snprintf(folders[2], 64, "special");
        snprintf(folders[3], 64, "unsorted/duplicates");
        for (int k = 0; k < 4; k++) assert_false(mode_demo_holdout_clipart(folders[k], words));
    }
    assert_in_range(held, 850, 1150); /* a seventh of 7000, five standard deviations either way */
}

static void test_cards_hold_out_a_quarter_in_every_suit_and_rank(void **state)
{
    (void)state;
    int held = 0;
    for (int rank = 1; rank <= 13; rank++) {
        int in_rank = 0;
        for (const char *s = "cdhs"; *s; s++) in_rank += mode_demo_holdout_card(*s, rank);
        assert_int_equal(in_rank, 1); /* three suits of each rank are seen */
        held += in_rank;
    }
    assert_int_equal(held, 13);
    assert_true(mode_demo_holdout_card('c', 1));
    assert_true(mode_demo_holdout_card('d', 2));
    assert_false(mode_demo_holdout_card('d', 1));
}

static void test_folders_hold_out_pairs_not_colours(void **state)
{
    (void)state;
    static const char *const colours[] = {"black", "blue", "bluegrey", "red", "violet", "yellow"};
    for (size_t i = 0; i < 6; i++) {
        int held = 0;
        char kind[32];
        for (int k = 0; k < 200; k++) {
            snprintf(kind, sizeof kind, "kind%d", k);
            held += mode_demo_holdout_folder(colours[i], kind);
        }
        assert_in_range(held, 8, 65); /* about 33 */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_is_the_head_of_sha1),
        cmocka_unit_test(test_emoji_families),
        cmocka_unit_test(test_emoji_rule_agrees_with_known_cases),
        cmocka_unit_test(test_clipart_is_held_out_by_family_and_not_in_four_folders),
        cmocka_unit_test(test_cards_hold_out_a_quarter_in_every_suit_and_rank),
        cmocka_unit_test(test_folders_hold_out_pairs_not_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
