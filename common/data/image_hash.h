/* image_hash.h - a small descriptor of an image, by which its copies are found: resized, recompressed, converted, slightly
 * cropped or edited.
 *
 * Two steps. A 64-bit perceptual hash finds candidates by Hamming distance. The correlation of two 16 x 16 RGB
 * thumbnails then confirms them: hashes of simple icons collide, and a hash knows no colour.
 *
 * Source:  pHash's DCT hash: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010):
 * the DCT-II of a 32 x 32 grey image, its coefficients (1..8, 1..8), a bit for each that is above their median. Here
 * the image is resized with antialiasing, whatever its aspect ratio, where pHash smooths it by a 7 x 7 mean first.
 * Threads: pure, but for decoding (data/decoder.h). */
#ifndef MODE_DATA_IMAGE_HASH_H
#define MODE_DATA_IMAGE_HASH_H

#include "data/image.h"

enum { MODE_IMAGE_HASH_SIDE = 32, MODE_IMAGE_HASH_THUMB = 16 };

struct mode_image_hash {
    uint64_t bits;
    uint8_t thumb[3 * MODE_IMAGE_HASH_THUMB * MODE_IMAGE_HASH_THUMB]; /* [3, 16, 16] */
};

/* Of a picture file; errors are those of mode_image_decode. */
enum mode_status mode_image_hash_file(struct mode_image_hash *h, const uint8_t *data, size_t size,
                                      const struct mode_image_limits *limits, struct mode_error *err);
/* Of pixels that are resized already: [3, 32, 32], 0 to 1. */
void mode_image_hash_pixels(struct mode_image_hash *h, const float *pixels);

/* Bits in which two hashes differ, 0 to 64. */
int mode_image_hash_distance(uint64_t a, uint64_t b);
/* Those of hashes [n] within a distance of `most` from bits: their indices, ascending, to out [n]. Returns how many. */
size_t mode_image_hash_near(uint32_t *out, const uint64_t *hashes, size_t n, uint64_t bits, int most);

/* Contrast of a thumbnail: the root mean square of its values around their channel's mean, in levels of 0 to 255. */
double mode_image_hash_contrast(const uint8_t *thumb);
/* Normalised correlation (Pearson's) of two thumbnails, -1 to 1: neither brightness nor contrast changes it. The smaller of
 * two: each channel around its own mean, which sees structure alone, and all values around one mean, which sees colour.
 * Where one of the images is grey, of their luminance. 0 where one is constant. */
double mode_image_hash_correlation(const uint8_t *a, const uint8_t *b);

#endif
