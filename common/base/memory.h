/* memory.h - available memory as the kernel reports it (Linux only: elsewhere "not known"), sizes as text, and
 * page-aligned memory. */
#ifndef MODE_BASE_MEMORY_H
#define MODE_BASE_MEMORY_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes that this process can still allocate: what is available on the machine, or what the limits of its control
 * groups (cgroup v1 or v2) leave if that is less; reclaimable caches count as free. SIZE_MAX: not known. root: "", or a
 * folder in the place of / (for tests). */
size_t mode_memory_left(const char *root);
/* Resident memory of this process now (VmRSS), bytes; 0: not known. */
size_t mode_memory_held(void);
/* A number of bytes, or of KiB, MiB, GiB, TiB: "8g", "1.5t", "1500m", "123456". Strict, above 0; MODE_E_VALUE
 * otherwise; what names the value in the error. */
enum mode_status mode_parse_size(const char *text, const char *what, size_t *out, struct mode_error *err);
/* For people, in the unit that fits: "0 bytes", "12.3 kB", "4.0 GB"; decimal, as disks are sold. Returns text. */
enum { MODE_SIZE_TEXT = 24 };
const char *mode_size_text(char text[MODE_SIZE_TEXT], uint64_t bytes);

/* Memory to be pinned for a GPU. Pinning works on whole pages, each only once, so this memory shares no page with other
 * data; MODE_PAGE is the largest page size of any system. The caller frees. NULL: not available. */
enum { MODE_PAGE = 65536 };
void *mode_memory_pages(size_t bytes);

#endif
