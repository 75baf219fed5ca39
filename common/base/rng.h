/* rng.h - counter-based random numbers (Philox 4x32-10).
 *
 * Every random decision in MoDE is a pure function of (seed, what it is for, which item, draw number), never of
 * process layout: one worker or sixty-four draw the same numbers. A generator is therefore created anew for each item,
 * at no cost.
 *
 *     struct mode_rng r = mode_rng_for(seed, MODE_RNG_CROP, epoch, sample);
 *     double scale = 0.9 + 0.1 * mode_rng_uniform(&r);
 *
 * Source:  Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11).
 * Threads: pure; a struct mode_rng belongs to one caller. */
#ifndef MODE_BASE_RNG_H
#define MODE_BASE_RNG_H

#include <stdint.h>

/* The numbers are fixed: changing one changes every run's bytes. */
enum mode_rng_purpose {
    MODE_RNG_CAPTION = 1, /* which caption of a sample     */
    MODE_RNG_SAMPLE = 2,  /* which vectors clustering sees */
    MODE_RNG_KMEANS = 3,  /* initial centres, refills      */
    MODE_RNG_OUT = 4,     /* out-of-cluster pairs          */
    MODE_RNG_ORDER = 5,   /* order of samples in an epoch  */
    MODE_RNG_CROP = 6,    /* random resized crop           */
    MODE_RNG_INIT = 7,    /* initial weights               */
    MODE_RNG_PROBE = 8,   /* pictures that a probe holds out */
    MODE_RNG_PATCHES = 9, /* patches that a step keeps */
    MODE_RNG_TEST = 99
};

struct mode_rng {
    uint32_t key[2];
    uint32_t ctr[4]; /* ctr[0] counts blocks of four numbers */
    uint32_t out[4];
    int left; /* unused numbers in out */
};

/* Generator for one item: a and b name it (epoch, sample), taken modulo 2^32 and 2^48. */
struct mode_rng mode_rng_for(uint64_t seed, enum mode_rng_purpose purpose, uint64_t a, uint64_t b);

uint32_t mode_rng_u32(struct mode_rng *r);
uint64_t mode_rng_u64(struct mode_rng *r);
/* Uniform in [0, 1), 53 bits. */
double mode_rng_uniform(struct mode_rng *r);
/* Uniform integer in [0, n), n >= 1, without modulo bias. */
uint64_t mode_rng_below(struct mode_rng *r, uint64_t n);
/* Standard normal (Box-Muller, one of the pair). */
double mode_rng_normal(struct mode_rng *r);
/* Fisher-Yates over n indices. */
void mode_rng_shuffle_u32(struct mode_rng *r, uint32_t *v, uint64_t n);

#endif
