/* service_outputs.h - the names of each service's outputs, for fake workers. */
#ifndef MODE_TESTS_SERVICE_OUTPUTS_H
#define MODE_TESTS_SERVICE_OUTPUTS_H

#include <stddef.h>
#include <string.h>

/* Ends with NULL; NULL: no such service. */
static inline const char *const *outputs_of(const char *service)
{
    static const char *const captions[] = {"captions.bin", NULL}, *const feat[] = {"feat.safetensors", NULL},
                             *const centres[] = {"centres.safetensors", NULL},
                             *const assign[] = {"assign.safetensors", NULL},
                             *const train[] = {"open_clip_config.json",
                                               "open_clip_model.safetensors",
                                               "optimizer.safetensors",
                                               "steps.jsonl",
                                               "train.json",
                                               NULL},
                             *const evaluate[] = {"logits.safetensors", "metrics.json", NULL},
                             *const ensemble[] = {"result.csv", "summary.json", "report.html", "weights.json", NULL};
    static const struct {
        const char *service;
        const char *const *names;
    } all[] = {{"captions", captions}, {"embed", feat},        {"cluster", centres},  {"assign", assign},
               {"train", train},       {"evaluate", evaluate}, {"ensemble", ensemble}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].service, service) == 0) return all[i].names;
    return NULL;
}

#endif
