/* Captions from file names and metadata: each rule on the kind of name that made it necessary. */
#include "data/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void gives(char *got, const char *expected)
{
    assert_string_equal(got, expected);
    free(got);
}

static void test_clean_collapses_space_and_resolves_entities(void **state)
{
    (void)state;
    gives(mode_demo_clean("  two \n\t words  "), "two words");
    gives(mode_demo_clean("Trinidad &amp; Tobago"), "Trinidad & Tobago");
    gives(mode_demo_clean("caf&#233; &#xe9; &lt;b&gt;"), "caf\u00e9 \u00e9 <b>");
    gives(mode_demo_clean("AT&T; R&D &#0; &#xd800; &unknown;"), "AT&T; R&D &#0; &#xd800; &unknown;");
    gives(mode_demo_clean("no\u00a0break"), "no break");
    gives(mode_demo_clean("bad\xff\xc3 bytes"), "bad bytes");
    gives(mode_demo_clean(" \n "), "");
}

static void test_clean_cuts_at_200_characters_not_bytes(void **state)
{
    (void)state;
    char text[1001];
    for (int i = 0; i < 500; i++) memcpy(text + i * 2, "\u00e9", 2);
    text[1000] = 0;
    char *cut = mode_demo_clean(text);
    assert_int_equal(strlen(cut), 400);
    assert_memory_equal(cut + 398, "\u00e9", 2);
    free(cut);
}

static void test_texts_are_long_enough_and_distinct(void **state)
{
    (void)state;
    struct mode_demo_texts t = {0};
    assert_true(mode_demo_texts_add(&t, "Apple"));
    assert_false(mode_demo_texts_add(&t, " APPLE "));
    assert_true(mode_demo_texts_add(&t, "\u00c9t\u00e9"));
    assert_false(mode_demo_texts_add(&t, "\u00e9T\u00c9"));
    assert_false(mode_demo_texts_add(&t, "ab"));
    assert_false(mode_demo_texts_add(&t, "\u00e9\u00e9")); /* 4 bytes, 2 characters */
    assert_int_equal(t.n, 2);
    for (char c = 'a'; t.n < MODE_DEMO_TEXTS_MAX; c++) assert_true(mode_demo_texts_add(&t, (char[]){c, c, c, 0}));
    assert_false(mode_demo_texts_add(&t, "one too many"));
    mode_demo_texts_clear(&t);
    assert_int_equal(t.n, 0);
}

static void test_titles_lose_separators_and_final_numbers(void **state)
{
    (void)state;
    gives(mode_demo_title("flag_of-togo.01"), "flag of togo");
    gives(mode_demo_title("smiley003"), "smiley003");
    gives(mode_demo_title("route 66 sign 2 3"), "route 66 sign");
    gives(mode_demo_title("1234"), "");
}

static void test_creators_leave_file_names(void **state)
{
    (void)state;
    const char *rollandin = "Architetto Francesco Rollandin";
    gives(mode_demo_stem_words("tasto_6_architetto_franc_01", rollandin), "tasto");
    gives(mode_demo_stem_words("as_coeur_jean_victor_bal_", "Jean-Victor Balin"), "as coeur");
    gives(mode_demo_stem_words("jacob_leisler_mo_01", "Mo"), "jacob leisler");
    gives(mode_demo_stem_words("coccinelle_tanguy_jacq_01", "Tanguy JACQ"), "coccinelle");
    gives(mode_demo_stem_words("red_car_01", NULL), "red car");
    gives(mode_demo_stem_words("francesco_01", rollandin), "francesco"); /* something must be left */
    gives(mode_demo_stem_words("car_of_francesco_in_rome", rollandin), "car of francesco in rome");
}

static void test_a_collections_title_is_not_the_pictures(void **state)
{
    (void)state;
    assert_true(mode_demo_title_is_own("Peacock"));
    assert_true(mode_demo_title_is_own("people at work"));
    static const char *const not_own[] = {"",        "people",      "Part of a set", "Lemon SVG theme", "AIGA symbol",
                                          "a@b.org", "drawing.SVG", "built in 1999", "untitled 3",      "new drawing"};
    for (size_t i = 0; i < sizeof not_own / sizeof *not_own; i++) assert_false(mode_demo_title_is_own(not_own[i]));
}

static void test_keywords(void **state)
{
    (void)state;
    assert_true(mode_demo_keyword_is_useful("insect"));
    assert_false(mode_demo_keyword_is_useful("ClipArt"));
    assert_false(mode_demo_keyword_is_useful("signs_and_symbols"));
    assert_false(mode_demo_keyword_is_useful("x"));
}

static void test_icon_names(void **state)
{
    (void)state;
    gives(mode_demo_icon_words("media-seek-backward"), "media seek backward");
    gives(mode_demo_icon_words("text-x-fortran"), "text fortran");
    gives(mode_demo_icon_words("application-vnd.oasis.opendocument.database"), "oasis opendocument database");
    gives(mode_demo_icon_words("com.github.author.paintBox"), "paint box");
    gives(mode_demo_icon_words("org.gnome.Calculator"), "calculator");
    gives(mode_demo_icon_words("gnome-gtk"), "gnome gtk"); /* nothing else would be left */
    assert_string_equal(mode_demo_icon_kind("mimetypes"), "file type");
    assert_null(mode_demo_icon_kind("animations"));
}

static void test_cards(void **state)
{
    (void)state;
    char suit = 0;
    int rank = 0;
    assert_true(mode_demo_card_parse("bordered_c_10", &suit, &rank));
    assert_int_equal(suit, 'c');
    assert_int_equal(rank, 10);
    assert_true(mode_demo_card_parse("white_s_a", &suit, &rank));
    assert_string_equal(mode_demo_card_rank(rank), "ace");
    assert_string_equal(mode_demo_card_suit(suit), "spades");
    assert_false(mode_demo_card_parse("bordered_jk_b", &suit, &rank));
    assert_false(mode_demo_card_parse("bordered_x_10", &suit, &rank));
    assert_false(mode_demo_card_parse("bordered_c_11", &suit, &rank));
}

static void test_stars(void **state)
{
    (void)state;
    assert_int_equal(mode_demo_star_points("star_12pt05step"), 12);
    assert_int_equal(mode_demo_star_points("star_05pt02step"), 5);
    assert_int_equal(mode_demo_star_points("star"), 0);
    assert_int_equal(mode_demo_star_points("estrella_01"), 0);
}

static void test_folders(void **state)
{
    (void)state;
    char colour[64], kind[64];
    assert_true(mode_demo_folder_parse("folder-bluegrey-image-people", colour, kind));
    assert_string_equal(colour, "bluegrey");
    assert_string_equal(kind, "image-people");
    assert_true(mode_demo_folder_parse("folder-red", colour, kind));
    assert_string_equal(kind, "");
    assert_false(mode_demo_folder_parse("folder-music", colour, kind));
    assert_false(mode_demo_folder_parse("folder-redder-music", colour, kind));
    assert_false(mode_demo_folder_parse("user-red-home", colour, kind));
    assert_string_equal(mode_demo_colour_words("paleorange"), "pale orange");
    assert_string_equal(mode_demo_article("orange"), "an");
    assert_string_equal(mode_demo_article("deep orange"), "a");
}

static void test_fruit(void **state)
{
    (void)state;
    assert_string_equal(mode_demo_fruit("A \u201cGranny Smith\u201d apple."), "apple");
    assert_string_equal(mode_demo_fruit("A pineapple."), "pineapple");
    assert_string_equal(mode_demo_fruit("A mandarin orange."), "mandarin orange");
    assert_string_equal(mode_demo_fruit("A pair of cherries."), "cherry");
    assert_string_equal(mode_demo_fruit("A chile pepper."), "chile pepper");
    assert_null(mode_demo_fruit("A cupcake."));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean_collapses_space_and_resolves_entities),
        cmocka_unit_test(test_clean_cuts_at_200_characters_not_bytes),
        cmocka_unit_test(test_texts_are_long_enough_and_distinct),
        cmocka_unit_test(test_titles_lose_separators_and_final_numbers),
        cmocka_unit_test(test_creators_leave_file_names),
        cmocka_unit_test(test_a_collections_title_is_not_the_pictures),
        cmocka_unit_test(test_keywords),
        cmocka_unit_test(test_icon_names),
        cmocka_unit_test(test_cards),
        cmocka_unit_test(test_stars),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_fruit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
