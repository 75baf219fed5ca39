#include "embed.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("embed", embed_work, argc, argv);
}
