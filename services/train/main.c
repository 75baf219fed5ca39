#include "train.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("train", train_work, argc, argv);
}
