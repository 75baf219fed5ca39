/* sample_json.h - parses the JSON member of a sample with limits: at most 1 MiB, at most 32 levels, UTF-8, no repeated
 * names; NaN and Infinity (which Python writes) are read as an empty string; numbers as doubles.
 *
 * Threads: pure. */
#ifndef MODE_DATA_SAMPLE_JSON_H
#define MODE_DATA_SAMPLE_JSON_H

#include "data/captions.h"

#include <jansson.h>

enum { MODE_SAMPLE_JSON_MAX_BYTES = 1 << 20, MODE_JSON_MAX_DEPTH = 32, MODE_WHY_BYTES = 120 };

/* KEPT: *root is an object, the caller's. BAD_TEXT, BAD_JSON: *root is NULL, and why is an error text for people. */
enum mode_fate mode_sample_json(json_t **root, const char *data, size_t size, char why[MODE_WHY_BYTES]);

#endif
