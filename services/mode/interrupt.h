/* interrupt.h - SIGINT and SIGTERM for verbs that have something to finish first. */
#ifndef MODE_SERVICES_MODE_INTERRUPT_H
#define MODE_SERVICES_MODE_INTERRUPT_H

/* From now on the first of these signals is only remembered; the second ends the process at once. */
void interrupt_catch(void);
/* The one that came, 0 = none. */
int interrupt_signal(void);
/* End as the signal wants it, for a verb that stopped because of it: returns the exit code (130, 143), after SIGINT by
 * dying of it, so that a shell's loop around us ends too. */
int interrupt_exit(void);

#endif
