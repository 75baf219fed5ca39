#include "evaluate.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("evaluate", evaluate_work, argc, argv);
}
