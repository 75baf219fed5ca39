/* holdout.h - which pictures are never trained on.
 *
 * Every rule is a pure function of names, so that the split is the same in every build, and keeps variants of one thing
 * (a "family") on one side: otherwise a held-out picture would leak through its near-duplicate in training.
 *
 * Threads: pure. */
#ifndef MODE_DEMO_HOLDOUT_H
#define MODE_DEMO_HOLDOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* First 8 hexadecimal digits of the SHA-1 of text, as a number, modulo n. */
uint32_t mode_demo_hash_mod(const char *text, uint32_t n);

/* folders: "food/fruit"; words: the file name without numbers and creator. Never held out: pictures in icons,
 * flags, special and unsorted. */
bool mode_demo_holdout_clipart(const char *folders, const char *words);

/* The family of an emoji: its characters (UTF-8) without skin tones, gender signs, U+FE0F and U+200D, with
 * man/woman/person as P, boy/girl/child as K, old man/woman/person as O: a judge is "P" and U+2696. size:
 * bytes, at least 4 * n + 1. */
void mode_demo_emoji_family(const uint32_t *code, int n, char *family, size_t size);
bool mode_demo_holdout_emoji(const char *family);
bool mode_demo_emoji_has_skin_tone(const uint32_t *code, int n);

/* suit one of c d h s, rank 1..13: the same 13 of 52 in every deck. */
bool mode_demo_holdout_card(char suit, int rank);

/* colour as in the file name ("bluegrey"): unseen pairs of a seen colour and a seen kind. */
bool mode_demo_holdout_folder(const char *colour, const char *kind);

#endif
