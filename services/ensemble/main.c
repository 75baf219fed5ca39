#include "ensemble.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("ensemble", ensemble_work, NULL, argc, argv);
}
