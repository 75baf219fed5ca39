#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

/* Written by the handler, read by every thread that downloads: sig_atomic_t is not enough for other threads. */
static atomic_int caught;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler may only touch lock-free atomics");

static void on_signal(int number)
{
    if (caught) _exit(128 + number);
    caught = number;
}

void interrupt_catch(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

int interrupt_signal(void)
{
    return caught;
}

int interrupt_exit(void)
{
    if (caught == SIGINT) {
        signal(SIGINT, SIG_DFL);
        raise(SIGINT); /* returns if this is process 1 */
    }
    return 128 + caught;
}
