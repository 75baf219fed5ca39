#include "embed.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("embed", embed_work, mode_backend_look, argc, argv);
}
