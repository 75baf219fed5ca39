/* Tux Paint's stamps: an unseen source for evaluation, partly photographs; the captions are human-written. */
#include "data/items.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

#define ROOT "usr/share/tuxpaint/stamps"

static char *first_line(const char *path)
{
    char *text = NULL;
    size_t size = 0;
    if (mode_file_read(path, 1 << 20, &text, &size, NULL) != MODE_OK) return NULL;
    text[strcspn(text, "\r\n")] = 0;
    char *clean = mode_demo_clean(text);
    free(text);
    if (*clean) return clean;
    free(clean);
    return NULL;
}

/* Folder below animals -> what one of them is called. */
static const char *animal_of(const char *folder)
{
    static const char *const names[][2] = {
        {"mammals", "mammal"}, {"birds", "bird"},           {"insects", "insect"},
        {"fish", "fish"},      {"marsupials", "marsupial"}, {"amphibians", "amphibian"},
        {"lizards", "lizard"}, {"shellfish", "shellfish"},  {"dinosaur", "dinosaur"}};
    size_t n = strcspn(folder, "/");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i][0]) == n && !memcmp(folder, names[i][0], n)) return names[i][1];
    return NULL;
}

static void add_stamp(struct mode_demo_set *set, const char *dir, const char *path, const char *caption)
{
    char *folder = mode_demo_path_folder(path);
    struct mode_demo_item *it = mode_demo_item_add(set, MODE_DEMO_TUXPAINT);
    it->path = mode_path_join(dir, path);
    it->is_svg = mode_demo_path_ends(path, ".svg");
    it->origin = mode_xstrdup(path);
    it->category = folder;
    it->held = true;
    mode_demo_texts_add(&it->texts, caption);
    if (!strncmp(folder, "symbols/alphabets", 17)) return;

    char *top = mode_xasprintf("%.*s", (int)strcspn(folder, "/"), folder);
    mode_demo_item_label(it, MODE_DEMO_TASK_STAMPS_CATEGORY, !strcmp(top, "naturalforces") ? "natural forces" : top);
    mode_demo_item_label(it, MODE_DEMO_TASK_RETRIEVAL_STAMPS, "");
    const char *animal = !strncmp(folder, "animals/", 8) ? animal_of(folder + 8) : NULL;
    if (animal) mode_demo_item_label(it, MODE_DEMO_TASK_STAMPS_ANIMALS, animal);
    bool is_fruit = !strncmp(folder, "food/fruit", 10) || !strncmp(folder, "food/vegetables", 15);
    const char *fruit = is_fruit ? mode_demo_fruit(caption) : NULL;
    if (fruit) mode_demo_item_label(it, MODE_DEMO_TASK_STAMPS_FRUIT_VEG, fruit);
    free(top);
}

enum mode_status mode_demo_tuxpaint(struct mode_demo_set *set, const char *root, struct mode_error *err)
{
    char *dir = mode_path_join(root, ROOT), *last = mode_xstrdup("");
    struct mode_demo_files files;
    enum mode_status st = mode_demo_files_list(&files, dir, "tuxpaint-stamps-default", err);
    if (st != MODE_OK) goto out;
    /* from the end: of NAME.png and NAME.svg the drawing, which has any size, comes first */
    for (int64_t i = files.n - 1; i >= 0; i--) {
        const char *path = files.path[i];
        if (!mode_demo_path_ends(path, ".png") && !mode_demo_path_ends(path, ".svg")) continue;
        char *stem = mode_xasprintf("%.*s", (int)(strlen(path) - 4), path);
        char *text_name = mode_xasprintf("%s.txt", stem), *text_path = mode_path_join(dir, text_name);
        char *caption = first_line(text_path);
        if (mode_demo_path_ends(stem, "_mirror") || mode_demo_path_ends(stem, "_flip"))
            mode_demo_tally(set, MODE_DEMO_TUXPAINT, "mirrored or flipped copy", 1);
        else if (!strcmp(stem, last))
            mode_demo_tally(set, MODE_DEMO_TUXPAINT, "same stamp as SVG", 1);
        else if (!caption)
            mode_demo_tally(set, MODE_DEMO_TUXPAINT, "no caption", 1);
        else
            add_stamp(set, dir, path, caption);
        free(last);
        last = stem;
        free(caption);
        free(text_name);
        free(text_path);
    }
    mode_demo_tally(set, MODE_DEMO_TUXPAINT, "symbolic link", files.n_links);
    mode_demo_files_clear(&files);
out:
    free(dir);
    free(last);
    return st;
}
