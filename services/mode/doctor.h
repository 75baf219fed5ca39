/* doctor.h - internal to `mode doctor`: one line per check. */
#ifndef MODE_SERVICES_MODE_DOCTOR_H
#define MODE_SERVICES_MODE_DOCTOR_H

enum doctor_verdict { DOCTOR_OK, DOCTOR_NONE, DOCTOR_WARN, DOCTOR_BAD, DOCTOR_VERDICTS };

/* Prints a line and counts it. DOCTOR_NONE: not present and not required; the text says why. */
void doctor_say(int count[DOCTOR_VERDICTS], enum doctor_verdict v, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* CUDA's major version at build time (cuda.cmake); without CUDA the newest. */
#ifndef MODE_CUDA_MAJOR
#define MODE_CUDA_MAJOR 13
#endif

/* Checks driver, libraries, devices, and a kernel and a GEMM against the CPU's. One line if there is no GPU. cuda_major,
 * 12 or 13: whose libraries are looked for first, as the backend does; normally MODE_CUDA_MAJOR. */
void doctor_gpus(int count[DOCTOR_VERDICTS], int cuda_major);

#endif
