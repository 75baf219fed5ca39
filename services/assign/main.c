#include "assign.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("assign", assign_work, mode_backend_look, argc, argv);
}
