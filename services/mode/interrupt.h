/* interrupt.h - SIGINT and SIGTERM for verbs that have something to finish first. */
#ifndef MODE_SERVICES_MODE_INTERRUPT_H
#define MODE_SERVICES_MODE_INTERRUPT_H

/* From now on the first of these signals is only recorded; a second ends the process at once. */
void interrupt_catch(void);
/* The recorded signal, 0 = none. */
int interrupt_signal(void);
/* Ends a verb that stopped because of the signal: returns the exit code 143 for SIGTERM; for SIGINT the process kills
 * itself with it, so that a surrounding shell loop ends, too (130). */
int interrupt_exit(void);

#endif
