/* evalset.h - an evaluation task as CLIP_benchmark lays it out on disk.
 *
 *     <dir>/classnames.txt (a class a line, tabs between several names of it),
 *     <dir>/zeroshot_classification_templates.txt ({c}), [dataset_type.txt],
 *     <dir>/test/nshards.txt, <dir>/test/0.tar ...: s0000000.cls + .jpg|.png|.webp, or .txt or .npy + picture.
 *
 * Threads: an open set is read-only. */
#ifndef MODE_DATA_EVALSET_H
#define MODE_DATA_EVALSET_H

#include "base/error.h"
#include "base/file.h"
#include "data/tar.h"

#include <stddef.h>
#include <stdint.h>

enum mode_task_kind {
    MODE_TASK_CLASSIFICATION = 1,
    MODE_TASK_RETRIEVAL = 2,
    MODE_TASK_MULTILABEL = 3, /* a picture may have several classes, or none */
    MODE_TASK_OTHER = 4       /* unknown kind: cannot be evaluated */
};
#define MODE_TASK_KINDS "classification, multilabel or retrieval" /* the supported kinds, for error texts */
const char *mode_task_kind_name(enum mode_task_kind kind);        /* "classification" */
enum mode_task_kind mode_task_kind_parse(const char *name);

enum { MODE_EVALSET_MAX_SHARDS = 100000, MODE_EVALSET_MAX_IMAGES = 10000000 };

struct mode_evalset {
    char *name; /* base name of dir */
    enum mode_task_kind kind;
    int n_classes;         /* 0 for retrieval */
    char **classes;        /* [n_classes]; the first of several names */
    char **synonyms;       /* [n_classes] the other names, tab-separated, or NULL; may itself be NULL */
    int n_templates;       /* >= 1 */
    char **templates;      /* with {c}       */
    int n_images;          /* in tar order over all shards */
    const uint8_t **image; /* [n_images] file bytes, borrowed from the tars */
    size_t *image_size;
    char **image_key;
    int32_t *label; /* classification: [n_images]; multilabel: [n_images, n_classes], 0 or 1 */
    int n_texts;    /* retrieval: all captions in tar order */
    char **texts;
    int32_t *image_of_text; /* [n_texts]                  */
    int n_tars;
    struct mode_tar_data *tars;
};

/* The lines of a file of words, stripped: at least one, none blank, UTF-8; templates: with {c} in each. Free with
 * mode_evalset_words_free. */
enum mode_status mode_evalset_words_read(char ***lines, int *n, const char *path, struct mode_error *err);
enum mode_status mode_evalset_templates_read(char ***lines, int *n, const char *path, struct mode_error *err);
void mode_evalset_words_free(char **lines, int n);
/* Reads a file of classes into e->classes and e->synonyms: a line may hold several tab-separated names. */
enum mode_status mode_evalset_classes_read(struct mode_evalset *e, const char *path, struct mode_error *err);
/* The kind in dataset_type.txt; classification if that is absent. *word (the caller frees): the text of the file. */
enum mode_status mode_evalset_kind(enum mode_task_kind *kind, char **word, const char *dir, struct mode_error *err);
/* The same for evaluation: MODE_TASK_OTHER is MODE_E_FORMAT. */
enum mode_status mode_evalset_known_kind(enum mode_task_kind *kind, const char *dir, struct mode_error *err);
/* Every sample must be complete: a missing picture, label or caption, a label out of range, a truncated or damaged tar
 * are MODE_E_FORMAT naming the file and the sample, because a task's score must not depend on lost samples. Pictures
 * are not decoded. A retrieval task without templates has the one template "{c}". */
enum mode_status mode_evalset_open(struct mode_evalset *e, const char *dir, struct mode_error *err);
/* The same for another split than test/: "train", as in CLIP_benchmark's data sets. */
enum mode_status mode_evalset_open_split(struct mode_evalset *e, const char *dir, const char *split,
                                         struct mode_error *err);
void mode_evalset_close(struct mode_evalset *e);
/* Number of prompts of a class: every template with each of its names, grouped by name. The class embedding is the mean
 * over them. */
int mode_evalset_n_prompts(const struct mode_evalset *e, int class_index);
/* Prompt 0 .. n_prompts - 1: the template with {c} replaced by the name; the caller frees. */
char *mode_evalset_prompt(const struct mode_evalset *e, int prompt_index, int class_index);
/* Digest over every file of the task (words, labels, pictures); and over its words alone: kind, class names
 * and templates, captions, in order. */
enum mode_status mode_evalset_digest(const char *dir, char hex[MODE_DIGEST_HEX], struct mode_error *err);
enum mode_status mode_evalset_words_digest(const char *dir, char hex[MODE_DIGEST_HEX], struct mode_error *err);
/* MODE_E_VALUE: the digest over every file has changed. */
enum mode_status mode_evalset_unchanged(const char *dir, const char *digest, struct mode_error *err);

#endif
