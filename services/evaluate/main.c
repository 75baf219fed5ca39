/* evaluate - one model on one task: zero-shot classification or retrieval.
 *
 * In:    EvaluateRequest (proto/evaluate.proto), a model's open_clip_config.json and open_clip_model.safetensors.
 * Out:   logits.safetensors, metrics.json.
 * State: none. A restart repeats the task. */
#include "evaluate.h"
#include "msg/worker.h"
#include "nn/look.h"

int main(int argc, char **argv)
{
    return mode_worker_main("evaluate", evaluate_work, mode_backend_look, argc, argv);
}
