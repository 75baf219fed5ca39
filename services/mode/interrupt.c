#include "interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

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
