/* doctor.h - inside of `mode doctor`: one line per thing that was looked at. */
#ifndef MODE_SERVICES_MODE_DOCTOR_H
#define MODE_SERVICES_MODE_DOCTOR_H

enum doctor_verdict { DOCTOR_OK, DOCTOR_NONE, DOCTOR_WARN, DOCTOR_BAD, DOCTOR_VERDICTS };

/* Print a line and count it. DOCTOR_NONE: it is not here and need not be; the text says why. */
void doctor_say(int count[DOCTOR_VERDICTS], enum doctor_verdict v, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Driver, libraries, devices, a kernel and a product against the processor's. One line where there is no GPU. */
void doctor_gpus(int count[DOCTOR_VERDICTS]);

#endif
