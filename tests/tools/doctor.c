/* mode-test-doctor MAJOR - the GPU checks of `mode doctor`, as a program built with that major version of CUDA does them:
 * for tests/service/doctor.sh. */
#include "doctor.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    int count[DOCTOR_VERDICTS] = {0};
    if (argc != 2) return 2;
    doctor_gpus(count, atoi(argv[1]));
    return 0;
}
