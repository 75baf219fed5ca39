/* captions - one shard's captions and sample index.
 *
 * In:    CaptionsRequest (proto/captions.proto); the tar is read where it lies.
 * Out:   captions.bin.
 * State: none. A restart repeats the shard. */
#include "captions.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("captions", captions_work, NULL, argc, argv);
}
