/* ensemble - every task's words to weights, the experts' scores mixed, the report.
 *
 * In:    EnsembleRequest (proto/ensemble.proto), centres, captions, assignments, words, logits, steps.
 * Out:   result.csv, weights.json, summary.json, report.html.
 * State: none. A restart repeats the whole step. */
#include "ensemble.h"
#include "msg/worker.h"

int main(int argc, char **argv)
{
    return mode_worker_main("ensemble", ensemble_work, NULL, argc, argv);
}
