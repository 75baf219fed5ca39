/* words.h - captions from file names and metadata.
 *
 * Pure text functions: no files, no pictures. Every returned string is malloc'd and the caller's.
 *
 * Threads: pure. */
#ifndef MODE_DEMO_WORDS_H
#define MODE_DEMO_WORDS_H

#include <stdbool.h>
#include <stddef.h>

/* The captions of one picture; the first is the main one. */
#define MODE_DEMO_TEXTS_MAX 8
struct mode_demo_texts {
    int n;
    char *text[MODE_DEMO_TEXTS_MAX]; /* owned, distinct without regard to case */
};

/* White space collapsed, XML entities resolved, at most 200 characters; invalid UTF-8 is dropped. "" when
 * nothing is left. */
char *mode_demo_clean(const char *raw);
/* Cleans and adds; false if the text is shorter than 3 characters, a duplicate, or the list is full. */
bool mode_demo_texts_add(struct mode_demo_texts *t, const char *raw);
void mode_demo_texts_clear(struct mode_demo_texts *t);
/* Case-folded copy, for comparisons. */
char *mode_demo_fold(const char *text);
/* needle occurs in text, without regard to case. */
bool mode_demo_contains(const char *text, const char *needle);
/* "a" or "an". */
const char *mode_demo_article(const char *word);

/* _ - . become spaces, trailing numbers are removed: "red_car-2" -> "red car". */
char *mode_demo_title(const char *raw);
/* File name without its extension and without what does not describe the picture: numbers, single letters and parts of
 * the creator's name at its end: ("gatto_architetto_franc_01", "Architetto Francesco Rollandin") -> "gatto". */
char *mode_demo_stem_words(const char *stem, const char *creator);
/* The title describes this picture and not a collection it is part of. */
bool mode_demo_title_is_own(const char *title);
/* A keyword that says something about the picture. */
bool mode_demo_keyword_is_useful(const char *keyword);

/* "gnome-media-seekBackward" -> "media seek backward"; of reverse-domain names only the last part. */
char *mode_demo_icon_words(const char *name);
/* The singular a context folder stands for: "mimetypes" -> "file type"; NULL for an unknown one. */
const char *mode_demo_icon_kind(const char *context);

/* "bordered_c_10" -> 'c', 10; ranks 1 (ace) .. 13 (king). false when it is not one of the 52. */
bool mode_demo_card_parse(const char *stem, char *suit, int *rank);
const char *mode_demo_card_suit(char suit); /* "clubs" */
const char *mode_demo_card_rank(int rank);  /* "ace"   */
/* "star_12pt5step" -> 12; 0 when it is not a generated star. */
int mode_demo_star_points(const char *stem);

/* "folder-bluegrey-music" -> colour "bluegrey", kind "music" (kind "" for the plain folder). colour and kind
 * are arrays of 64. false when the colour is not one of the 21. */
bool mode_demo_folder_parse(const char *name, char colour[64], char kind[64]);
/* "bluegrey" -> "blue grey"; other colours as they are; borrowed. */
const char *mode_demo_colour_words(const char *colour);

/* The fruit or vegetable a caption names ("A \"Fuji\" apple." -> "apple"), NULL if none; static. */
const char *mode_demo_fruit(const char *caption);

#endif
