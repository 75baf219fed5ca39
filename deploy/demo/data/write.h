/* write.h - the finished set as WebDataset shards, evaluation sets and a table of sources.
 *
 *     out/train/<i % 100>/<i>.tar        key.json {"texts": [...], "source": ..., ...}, key.jpg; 1000 pairs each
 *     out/eval/<task>/classnames.txt ... as described in common/data/evalset.h
 *     out/SOURCES.md                     sources, licences, counts, what was left out and why
 *
 * Threads: one caller. */
#ifndef MODE_DEMO_WRITE_H
#define MODE_DEMO_WRITE_H

#include "data/items.h"

/* Replaces out/train and out/eval. packages: the folder with packages.tsv (per line name, version, bytes). Also prints
 * the table of sources to stdout. */
enum mode_status mode_demo_write(const struct mode_demo_set *set, const char *packages, const char *out,
                                 const char *profile, bool tuxpaint, struct mode_error *err);

#endif
