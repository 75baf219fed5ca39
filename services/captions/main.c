#include "captions.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("captions", captions_work, NULL, argc, argv);
}
