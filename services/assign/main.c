/* assign - the nearest fine centre of every caption of a shard.
 *
 * In:    AssignRequest (proto/assign.proto), the shard's text vectors, the centres.
 * Out:   assign.safetensors.
 * State: none. A restart repeats the shard. */
#include "assign.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("assign", assign_work, mode_backend_look, argc, argv);
}
