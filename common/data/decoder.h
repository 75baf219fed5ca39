/* decoder.h - the processes in which pictures are decoded: one for each thread that decodes, kept from picture to
 * picture.
 *
 * A picture of the web may crash a decoder, keep it busy for ever, or take it over. So the functions of image.h that
 * read picture files (all of them; decode_here.h is what they run) send the bytes to a process that can do nothing but
 * compute, and take pixels from it. That process is this program once more (/proc/self/exe under another name), so it
 * has none of this one's memory, files or threads; from its first picture on it may make no system call but those of
 * MODE_LOCK_DECODE (base/system_calls.h). It ends with this process, however that ends.
 *
 * A picture at which a decoder dies, or which takes too long or too much, is tried once more in a new one, by the
 * plainest way (decoded whole), so that what is said of a picture depends on nothing before it. Then it is bad:
 * MODE_E_FORMAT, "the decoder was stopped by signal 11 (Segmentation fault)". A decoder that is killed from outside
 * (signal 9) is nobody's fault: the picture is tried again, up to three times, and the last is MODE_E_MEMORY.
 *
 * Where the kernel allows no lock (mode_system_calls_can_lock) the decoders run without one; workers and `mode doctor`
 * say so.
 *
 * Threads: any. */
#ifndef MODE_DATA_DECODER_H
#define MODE_DATA_DECODER_H

#include <stdbool.h>
#include <stddef.h>

/* Processor time that the decoders of this process have taken so far, seconds. */
double mode_decoder_cpu_seconds(void);
/* How many there are now. */
int mode_decoder_count(void);

/* Is this sentence about a picture at which a decoder failed, not about one that it refused? */
bool mode_decoder_failed(const char *why);

/* Of one picture. Beyond the limits nothing is right about a picture that passed those of struct mode_image_limits;
 * they are variables for tests alone, set before the first picture. */
struct mode_decoder_limits {
    int cpu_seconds;    /* of a picture                                                         */
    int answer_seconds; /* that a decoder may give no answer and use no processor time          */
    int silent_seconds; /* that it may give no answer at all: an overloaded machine is slow     */
    size_t memory;      /* of a decoder, bytes; more where larger pictures than usual are allowed */
};
extern struct mode_decoder_limits mode_decoder_limits;

#endif
