/* memory.h - how much memory there is, as far as the kernel tells (Linux only: elsewhere it is "not known"), sizes as
 * text, and memory on pages of its own. */
#ifndef MODE_BASE_MEMORY_H
#define MODE_BASE_MEMORY_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes that processes like this one can still take: what is available on the machine, or less where a limit of the
 * control groups it is in (cgroup v1 or v2) leaves less; caches that are given up when memory is short do not count as
 * taken. SIZE_MAX: not known. root: "", or a folder in the place of / (for tests). */
size_t mode_memory_left(const char *root);
/* Bytes this process holds now (VmRSS); 0: not known. */
size_t mode_memory_held(void);
/* A number of bytes, or of KiB, MiB, GiB, TiB: "8g", "1.5t", "1500m", "123456". Strict, above 0; MODE_E_VALUE, what names the
 * thing. */
enum mode_status mode_parse_size(const char *text, const char *what, size_t *out, struct mode_error *err);
/* For people, in the unit that fits: "0 bytes", "12.3 kB", "4.0 GB"; decimal, as disks are sold. Returns text. */
enum { MODE_SIZE_TEXT = 24 };
const char *mode_size_text(char text[MODE_SIZE_TEXT], uint64_t bytes);

/* Memory for what is pinned for a GPU: that is done by the page, and no page twice, so it shares none; MODE_PAGE is the
 * largest that a system has. The caller frees. NULL: not to be had. */
enum { MODE_PAGE = 65536 };
void *mode_memory_pages(size_t bytes);

#endif
