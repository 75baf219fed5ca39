/* Cleaning by small hand-checked cases; thousands of lines against the reference are in tests/golden. */
#include "data/html_text.h"
#include "data/text_clean.h"
#include "data/text_repair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *to_utf8(const struct mode_runes *r)
{
    struct mode_str s = {0};
    mode_str_add(&s, "", 0);
    for (size_t i = 0; i < r->len; i++) {
        char u[4];
        mode_str_add(&s, u, (size_t)mode_utf8_put(r->data[i], u));
    }
    char *text = mode_xstrdup(s.data ? s.data : "");
    mode_str_clear(&s);
    return text;
}

static void check(void clean(struct mode_runes *), const char *in, const char *want)
{
    struct mode_runes r = {0};
    mode_runes_from_utf8(&r, in, strlen(in));
    clean(&r);
    char *got = to_utf8(&r);
    if (strcmp(got, want) != 0) fail_msg("\"%s\" became \"%s\", expected \"%s\"", in, got, want);
    free(got);
    mode_runes_clear(&r);
}

static void test_openai_cleaning(void **state)
{
    (void)state;
    check(mode_text_clean_openai, "", "");
    check(mode_text_clean_openai, "  A  Photo\tof\n a CAT  ", "a photo of a cat");
    check(mode_text_clean_openai, "\xe2\x80\x9cquoted\xe2\x80\x9d and it\xe2\x80\x99s", "\"quoted\" and it's");
    check(mode_text_clean_openai, "fish &amp;amp; chips &lt;b&gt;", "fish & chips <b>");
    check(mode_text_clean_openai, "P&EACUTE;REZ &eacute;t&eacute; &copy2020",
          "p\xc3\xa9rez \xc3\xa9t\xc3\xa9 \xc2\xa9"
          "2020");
    check(mode_text_clean_openai, "\xef\xbc\xa6\xef\xbc\xb5\xef\xbc\xac\xef\xbc\xac\xe3\x80\x80width", "full width");
    check(mode_text_clean_openai,
          "\xef\xac\x81rst o\xef\xac\x83"
          "ce",
          "first office");
    check(mode_text_clean_openai,
          "a\x01"
          "b\x7f"
          "c\xef\xbb\xbf"
          "d \x1b[31mred\x1b[0m",
          "abcd red");
    check(mode_text_clean_openai,
          "one\r\ntwo\rthree\xe2\x80\xa8"
          "four",
          "one two three four");
    check(mode_text_clean_openai,
          "\xce\x9f\xce\x94\xce\xa5\xce\xa3\xce\xa3\xce\x95\xce\xa5\xce\xa3 \xce\xa3", /* final sigma */
          "\xce\xbf\xce\xb4\xcf\x85\xcf\x83\xcf\x83\xce\xb5\xcf\x85\xcf\x82 \xcf\x83");
    check(mode_text_clean_openai, "\xc4\xb0stanbul", "i\xcc\x87stanbul");
    check(mode_text_clean_openai, "a\xcc\x81", "\xc3\xa1");                                /* composed        */
    check(mode_text_clean_openai, "bad \xff byte", "bad \xef\xbf\xbd byte");               /* U+FFFD          */
    check(mode_text_clean_openai, "x\xe2\x82", "x\xef\xbf\xbd");                           /* cut: one U+FFFD */
    check(mode_text_clean_openai, "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate's bytes */
}

static void test_hf_cleaning(void **state)
{
    (void)state;
    check(mode_text_clean_hf, "  A \t Photo ", "a photo");
    check(mode_text_clean_hf, "\xe2\x80\x9c&amp;\xe2\x80\x9d a\xcc\x81", "\xe2\x80\x9c&amp;\xe2\x80\x9d \xc3\xa1");
    check(mode_text_clean_hf, "\xce\xa3\xce\x91\xce\xa3", "\xcf\x83\xce\xb1\xcf\x83"); /* no final sigma there */
}

static void test_mojibake_is_undone(void **state)
{
    (void)state;
    check(mode_text_repair, "caf\xc3\x83\xc2\xa9", "caf\xc3\xa9");                       /* Ã©  */
    check(mode_text_repair, "it\xc3\xa2\xe2\x82\xac\xe2\x84\xa2s", "it\xe2\x80\x99s");   /* â€™ */
    check(mode_text_repair, "caf\xc3\x83\xc6\x92\xc3\x82\xc2\xa9", "caf\xc3\xa9");       /* twice */
    check(mode_text_repair, "\xc3\xb0\xc5\xb8\xcb\x9c\xc2\x80", "\xf0\x9f\x98\x80");     /* an emoji */
    check(mode_text_repair, "\xc3\x83 la carte", "\xc3\xa0 la carte");                   /* its A0 became a blank */
    check(mode_text_repair, "end\xc3\xa2\xe2\x82\xac\xef\xbf\xbd", "end\xef\xbf\xbd");   /* a byte was lost */
    check(mode_text_repair, "\xc3\x90\xc2\xbf\xc3\x91\xe2\x82\xac", "\xd0\xbf\xd1\x80"); /* Cyrillic, a chain */
}

static void test_sound_text_is_left_alone(void **state)
{
    (void)state;
    static const char *const sound[] = {
        "caf\xc3\xa9",
        "\xc3\x9c\x62\x65r",
        "CAF\xc3\x89\xc2\xbb",                                 /* CAFÉ»   */
        "Spa\xc3\x9f\xe2\x80\x9c und gro\xc3\x9f\xe2\x80\xa6", /* Spaß“ */
        "ROS\xc3\x89\xe2\x80\x99s",                            /* ROSÉ’s  */
        "\xc3\x9a\xc5\xbe\x61sn\xc3\xbd",                      /* Úžasný  */
        "NEM\xc3\x94\xc5\xbd\x45",                             /* NEMÔŽE  */
        "\xc3\xa9\xe2\x80\xa6\xc2\xbb",                        /* é…»     */
        "20\xc2\xb0\x43 \xc2\xa9 \xc3\x97 \xc2\xbd",
        "S\xc3\x83O PAULO",
        "MA\xc3\x87\xc3\x83\xe2\x80\x99s", /* MAÇÃ’s */
    };
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) check(mode_text_repair, sound[i], sound[i]);
}

static void test_character_references(void **state)
{
    (void)state;
    check(mode_html_unescape, "&lt;&gt;&amp;&quot;&apos;", "<>&\"'");
    check(mode_html_unescape, "&#65;&#x42;&#x43", "ABC");
    check(mode_html_unescape, "&#0;&#xd800;&#99999999999;", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    check(mode_html_unescape, "&#146;", "\xe2\x80\x99"); /* Windows-1252, as browsers read it */
    check(mode_html_unescape, "a&#1;b", "ab");
    check(mode_html_unescape, "&notit; &nosuch; & &; &#; &#x;", "\xc2\xacit; &nosuch; & &; &#; &#x;");
    check(mode_html_unescape, "AT&T", "AT&T");
    check(mode_html_unescape, "&amp;lt;", "&lt;"); /* once, not twice */
    check(mode_html_unescape_strict, "this&not that", "this&not that");
    check(mode_html_unescape_strict, "&NTILDE;&SZLIG;&nTILDE;", "\xc3\x91SS&nTILDE;");
    check(mode_html_unescape_strict, "&#59; &#8217;", "&#59; \xe2\x80\x99");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openai_cleaning),      cmocka_unit_test(test_hf_cleaning),
        cmocka_unit_test(test_mojibake_is_undone),   cmocka_unit_test(test_sound_text_is_left_alone),
        cmocka_unit_test(test_character_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
