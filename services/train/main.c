/* train - trains a CLIP: the seed model, its dense continuation, one data expert.
 *
 * In:    TrainRequest (proto/train.proto), caption files, for an expert assignments and centres, for a
 *        continuation the parent's files.
 * Out:   open_clip_config.json, open_clip_model.safetensors, optimizer.safetensors, steps.jsonl, train.json.
 *        Beside them, for people: the curve in the run's folder, runs/<name>/tensorboard/<model> (pipeline/board.h).
 * State: a checkpoint every checkpoint_steps steps; a restart resumes from the latest, to the same bytes. With --gpus
 * N, N processes train a model together; with --machines also those of other machines, where `mode-train join` runs. */
#include "msg/worker.h"
#include "nn/look.h"
#include "train.h"

int main(int argc, char **argv)
{
    return mode_worker_main("train", train_work, mode_backend_look, argc, argv);
}
