/* cluster - the fine centres of all captions, and their groups: one expert each.
 *
 * In:    ClusterRequest (proto/cluster.proto), the text vectors of all shards.
 * Out:   centres.safetensors.
 * State: none. A restart begins again. */
#include "cluster.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("cluster", cluster_work, mode_backend_look, argc, argv);
}
