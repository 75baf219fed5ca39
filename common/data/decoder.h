/* decoder.h - the processes in which pictures are decoded: one per decoding thread, reused from picture to picture.
 *
 * A picture from the web may crash a decoder, make it loop forever, or exploit it. So all functions of image.h that
 * read picture files send the bytes to a sandboxed process, which runs decode_here.h and returns pixels. That process
 * is the same program started again (/proc/self/exe under another name), so it shares no memory, files or threads with
 * this one; from its first picture on it may only make the system calls of MODE_LOCK_DECODE (base/system_calls.h). It
 * dies with this process, however that ends.
 *
 * A picture that crashes a decoder or exceeds its time or memory limit is retried once in a new one, decoded whole, so
 * that the verdict on a picture does not depend on earlier ones. If that fails too, the picture is bad: MODE_E_FORMAT,
 * "the decoder was stopped by signal 11 (Segmentation fault)". A decoder that is killed from outside (signal 9) is not
 * the picture's fault: it is retried, and the third kill is MODE_E_MEMORY.
 *
 * Where the kernel does not allow the lock (mode_system_calls_can_lock) decoders run without it; workers and `mode
 * doctor` report that.
 *
 * Threads: any. */
#ifndef MODE_DATA_DECODER_H
#define MODE_DATA_DECODER_H

#include <stdbool.h>
#include <stddef.h>

/* Processor time used by the decoders of this process so far, seconds. */
double mode_decoder_cpu_seconds(void);
/* Memory of a decoder's own with pictures of up to some 4 megapixels; the program, 15 MiB, is shared by all. */
#define MODE_DECODER_BYTES ((size_t)16 << 20)
/* Number of decoders now. */
int mode_decoder_count(void);

/* Whether this error text is about a failed decoder, not about a picture that it rejected. */
bool mode_decoder_failed(const char *why);

/* Limits per picture. Nothing that passes struct mode_image_limits and is well-formed reaches them. Variable for tests
 * only, set before the first picture. */
struct mode_decoder_limits {
    int cpu_seconds;    /* of a picture                                                         */
    int answer_seconds; /* without an answer and without using processor time                   */
    int silent_seconds; /* without an answer at all: an overloaded machine is slow              */
    size_t memory;      /* of a decoder, bytes; more where larger pictures are allowed */
};
extern struct mode_decoder_limits mode_decoder_limits;

#endif
