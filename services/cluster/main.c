#include "cluster.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("cluster", cluster_work, argc, argv);
}
