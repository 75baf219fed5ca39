#include "assign.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("assign", assign_work, argc, argv);
}
