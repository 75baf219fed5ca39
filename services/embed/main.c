/* embed - unit text vectors of captions, or of the words of an evaluation task.
 *
 * In:    EmbedRequest (proto/embed.proto), a shard's captions.bin or a task's folder.
 * Out:   feat.safetensors.
 * State: none that shows: the encoder stays loaded from task to task. A restart repeats the shard. */
#include "embed.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("embed", embed_work, mode_backend_look, argc, argv);
}
