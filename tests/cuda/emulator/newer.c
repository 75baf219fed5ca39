/* newer.c - libraries of a newer toolkit than the emulated one, which lie beside its own as they do where PyTorch brought
 * some. They may want a newer driver: whoever loads them has not looked for those that it was compiled for. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void come(void)
{
    fprintf(stderr, "emulator: a library of CUDA 13 was loaded, and that of the toolkit is there\n");
    abort();
}
