#include "cluster.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("cluster", cluster_work, mode_backend_look, argc, argv);
}
