#include "pipeline/captions.h"

#include "base/parallel.h"
#include "base/str.h"
#include "data/decoder.h"
#include "data/face_boxes.h"
#include "data/sample_json.h"
#include "data/utf8.h"
#include "remote/shards.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK_SAMPLES = 64 }; /* between two calls of progress */

struct verdict {
    struct mode_sample sample; /* without caption */
    struct mode_text_choice text;
    enum mode_status failed; /* an error that is not the sample's fault, such as no memory */
    struct mode_error err;
};

struct work {
    const struct mode_captions_options *o;
    const struct mode_tar_data *data;
    const struct mode_sample_list *list;
    struct verdict *verdicts; /* of one block */
    size_t first;             /* of the block */
};

/* The samples of captions.bin, in tar order; keys, captions and boxes are owned. */
struct made {
    struct mode_sample *samples;
    size_t n, room;
};

static void add_sample(struct made *made, const struct mode_sample *base, const char *key, uint32_t index,
                       enum mode_fate fate, char *caption)
{
    if (made->n == made->room) {
        made->room = made->room ? 2 * made->room : 1024;
        made->samples = mode_xrealloc(made->samples, made->room * sizeof *made->samples);
    }
    struct mode_sample *s = &made->samples[made->n++];
    *s = *base;
    s->key = mode_xstrdup(key);
    s->caption_index = index;
    s->fate = (uint8_t)fate;
    s->caption = caption ? caption : "";
    if (fate != MODE_FATE_KEPT) s->n_boxes = 0;
    if (s->n_boxes) {
        struct mode_box *boxes = mode_xcalloc(s->n_boxes, sizeof *boxes);
        memcpy(boxes, base->boxes, s->n_boxes * sizeof *boxes);
        s->boxes = boxes;
    } else
        s->boxes = NULL;
}

/* Adds one sample, or one for each of its captions. */
static void add_verdict(struct made *made, struct verdict *v)
{
    const struct mode_sample *base = &v->sample;
    if (base->fate != MODE_FATE_KEPT) {
        add_sample(made, base, base->key, 0, (enum mode_fate)base->fate, NULL);
        return;
    }
    for (uint32_t i = 0; i < v->text.n; i++) {
        struct mode_text *t = &v->text.texts[i];
        add_sample(made, base, base->key, t->index, t->fate, t->caption);
        t->caption = NULL; /* moved */
    }
}

static void verdict_clear(struct verdict *v)
{
    free((char *)(uintptr_t)v->sample.key);
    free((struct mode_box *)(uintptr_t)v->sample.boxes);
    mode_text_choice_clear(&v->text);
}

/* Adds the picture's offset to the error: one that makes a decoder crash should be inspected. */
static void add_offset(struct mode_error *e, const struct mode_sample *s)
{
    char why[sizeof e->text];
    memcpy(why, e->text, sizeof why);
    mode_error_set(e, e->status, e->file, e->line, "%s at the picture of %llu bytes at byte %llu", why,
                   (unsigned long long)s->image_size, (unsigned long long)s->image_offset);
}

/* Decodes the picture. On failure v->err is set. */
static enum mode_fate check_image(struct mode_sample *s, const uint8_t *data, struct verdict *v,
                                  const struct mode_image_limits *limits)
{
    int width, height;
    if (mode_image_sniff(data, s->image_size) == MODE_IMAGE_UNKNOWN) {
        mode_error_set(&v->err, MODE_E_FORMAT, __FILE__, __LINE__, "not a JPEG, PNG or WebP picture but %s",
                       mode_image_looks_like(data, s->image_size));
        return MODE_FATE_NOT_AN_IMAGE;
    }
    enum mode_status st = mode_image_probe(data, s->image_size, limits, &width, &height, &v->err);
    s->width = (uint32_t)width;
    s->height = (uint32_t)height;
    if (st == MODE_E_VALUE) return MODE_FATE_IMAGE_TOO_LARGE;
    if (st && mode_decoder_failed(v->err.text)) add_offset(&v->err, s);
    if (st && st != MODE_E_FORMAT) v->failed = st; /* the machine's fault, not the picture's */
    return st ? MODE_FATE_BAD_IMAGE : MODE_FATE_KEPT;
}

/* The boxes to blur. A field that is not a list of boxes rejects the sample: it must not be trained on unblurred. */
static enum mode_fate find_boxes(struct verdict *v, const struct work *w, const struct mode_group *g)
{
    const struct mode_text_key *k = &w->o->blur;
    const struct mode_member *m = k->ext[0] ? mode_group_member(w->list, g, k->ext) : NULL;
    struct mode_sample *s = &v->sample;
    struct mode_box *boxes = NULL;
    char why[MODE_WHY_BYTES];
    json_t *root;
    if (!m) return MODE_FATE_KEPT;
    enum mode_fate fate = mode_sample_json(&root, (const char *)w->data->data + m->offset, (size_t)m->size, why);
    if (!fate &&
        !mode_face_boxes(&boxes, &s->n_boxes, json_object_get(root, k->field), s->width, s->height, why, sizeof why))
        fate = MODE_FATE_BAD_JSON;
    s->boxes = boxes;
    json_decref(root);
    if (fate) mode_error_set(&v->err, MODE_E_FORMAT, __FILE__, __LINE__, "%s: %s", k->field, why);
    return fate;
}

/* The last sample of a truncated tar may have lost whole members. */
static bool is_truncated(const struct work *w, const struct mode_group *g, const struct mode_member *image,
                         const struct mode_text_choice *text)
{
    if (g->cut) return true;
    return w->list->cut && g == &w->list->groups[w->list->n_groups - 1] &&
           (!image || text->fate == MODE_FATE_NO_CAPTION);
}

static void one_sample(void *ctx, int64_t item, int thread)
{
    (void)thread;
    struct work *w = ctx;
    struct verdict *v = &w->verdicts[item];
    const size_t i = w->first + (size_t)item;
    const struct mode_group *g = &w->list->groups[i];
    struct mode_sample *s = &v->sample;
    const struct mode_member *image = mode_group_image(w->list, g);
    *v = (struct verdict){0};
    *s = (struct mode_sample){.key = mode_utf8_cleaned(g->key, strlen(g->key))};
    if (image) {
        s->image_offset = image->offset;
        s->image_size = image->size;
    }
    struct mode_rng rng = mode_rng_for(w->o->seed, MODE_RNG_CAPTION, w->o->shard_index, i);
    mode_text_choose(&v->text, &w->o->keys, w->data->data, w->list, g, w->o->all, rng);
    s->caption_count = v->text.count;

    enum mode_fate fate;
    if (is_truncated(w, g, image, &v->text)) {
        fate = MODE_FATE_TRUNCATED;
        mode_error_set(&v->err, MODE_E_FORMAT, __FILE__, __LINE__, "the tar ends inside this sample, at byte %llu",
                       (unsigned long long)w->list->cut_at);
    } else if (g->again) {
        fate = MODE_FATE_DUPLICATE_KEY;
        mode_error_set(&v->err, MODE_E_FORMAT, __FILE__, __LINE__, "its key was seen earlier in this shard");
    } else if (!image) {
        fate = MODE_FATE_NO_IMAGE;
        mode_error_set(&v->err, MODE_E_FORMAT, __FILE__, __LINE__, "no member ends in jpg, png, jpeg or webp");
    } else if (v->text.fate != MODE_FATE_KEPT) {
        fate = v->text.fate;
        mode_error_set(&v->err, MODE_E_FORMAT, __FILE__, __LINE__, "%s", v->text.why);
    } else
        fate = check_image(s, w->data->data + image->offset, v, &w->o->limits);
    if (fate == MODE_FATE_KEPT) fate = find_boxes(v, w, g);
    s->fate = (uint8_t)fate;
}

static enum mode_status check_unchanged(const struct mode_captions_options *o, const char *path, struct mode_error *err)
{
    struct stat sb;
    if (stat(path, &sb) != 0) return MODE_OK; /* opening it gives the error */
    const uint64_t mtime = (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec;
    if (o->shard_size && (uint64_t)sb.st_size != o->shard_size)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "%s: %llu bytes when the run was planned, %llu now; a shard must not change", o->shard_path,
                         (unsigned long long)o->shard_size, (unsigned long long)sb.st_size);
    if (o->shard_mtime_ns && mtime != o->shard_mtime_ns)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "%s: modified since the run was planned (time %llu then, %llu now, in ns); a shard must not "
                         "change",
                         o->shard_path, (unsigned long long)o->shard_mtime_ns, (unsigned long long)mtime);
    return MODE_OK;
}

static enum mode_status check_strict(const struct mode_sample_list *s, const char *path, struct mode_error *err)
{
    if (s->duplicate_ext)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: %llu sample%s an extension; strict reading allows none", path,
                         (unsigned long long)s->duplicate_ext, s->duplicate_ext == 1 ? " repeats" : "s repeat");
    if (s->non_contiguous)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "%s: %llu sample%s a key seen earlier in the shard; strict reading allows none. HINT: "
                         "members of a sample must be neighbours (tar --sort=name)",
                         path, (unsigned long long)s->non_contiguous, s->non_contiguous == 1 ? " has" : "s have");
    return MODE_OK;
}

static char *name_of(const struct mode_captions_options *o)
{
    const char *name = o->shard_name ? o->shard_name : mode_path_base(o->shard_path);
    return mode_utf8_cleaned(name, strlen(name));
}

char *mode_captions_bad_reason(const struct mode_error *bad, const char *path)
{
    const size_t n = strlen(path);
    const bool named = strncmp(bad->text, path, n) == 0 && strncmp(bad->text + n, ": ", 2) == 0;
    const char *why = named ? bad->text + n + 2 : bad->text, *hint = strstr(why, ". HINT: ");
    return mode_utf8_cleaned(why, hint ? (size_t)(hint - why) : strlen(why));
}

/* The captions of a shard that is not a tar: no samples, and the reason. */
static enum mode_status save_bad(const char *out_path, const struct mode_captions_options *o, const char *path,
                                 const struct mode_error *bad, struct mode_error *err)
{
    struct stat sb;
    if (stat(path, &sb) != 0) return mode_input_fail(err, errno, path, "be examined");
    char *name = name_of(o), *why = mode_captions_bad_reason(bad, path);
    const struct mode_captions file = {
        .shard_name = name, .shard_size = (uint64_t)sb.st_size, .data_size = (uint64_t)sb.st_size, .bad = why};
    enum mode_status st = mode_captions_save(&file, out_path, err);
    free(name);
    free(why);
    return st;
}

/* The members of a shard. *bad: its contents are not a tar, which another attempt would not change. */
static enum mode_status list_members(struct mode_sample_list *list, struct mode_tar_data *data, bool *bad,
                                     const struct mode_captions_options *o, const char *path, struct mode_error *err)
{
    struct mode_error changed;
    enum mode_status st = mode_tar_data_open(data, path, err);
    if (!st) st = mode_samples_list(list, data, path, err);
    *bad = st == MODE_E_FORMAT || st == MODE_E_VALUE;
    if (!*bad) return st;
    if (!check_unchanged(o, path, &changed)) return err->status = MODE_E_FORMAT;
    *bad = false; /* it was being written */
    *err = changed;
    return changed.status;
}

char *mode_captions_bad_hint(const char *why, const char *option)
{
    const bool more = strstr(why, "HINT: ") != NULL;
    return mode_xasprintf("%s%s%s skips shards that cannot be read%s", why, more ? " (" : ". HINT: ", option,
                          more ? ")" : "");
}

enum mode_status mode_captions_check_bad(uint64_t n_bad, uint64_t n_shards, const char *key, const char *shard,
                                         const char *why, struct mode_error *err)
{
    if (n_bad < n_shards && (n_bad < 2 || 10 * n_bad <= n_shards)) return MODE_OK;
    return MODE_FAIL(
        err, MODE_E_VALUE,
        "%s: %llu of %llu shard%s %s corrupt; expected at most one, or a tenth of them (%s: %.300s). HINT: is "
        "it the right source, and was it copied completely?",
        key, (unsigned long long)n_bad, (unsigned long long)n_shards, MODE_PLURAL(n_shards),
        n_bad == 1 ? "is not a tar or is" : "are not tars or are", shard, why);
}

enum mode_status mode_captions_extract(struct mode_captions *c, const char *out_path,
                                       const struct mode_captions_options *o, struct mode_error *err)
{
    struct mode_tar_data data = {0};
    struct mode_sample_list list = {0};
    struct made made = {0};
    struct verdict *verdicts = NULL;
    struct mode_shard_file shard;
    struct mode_error nobody, why;
    size_t n_done = 0;
    bool bad;
    *c = (struct mode_captions){0};
    if (!err) err = &nobody;
    const struct mode_remote_watch watch = {.going = o->fetching, .ctx = o->ctx};
    enum mode_status st = mode_shard_hold(&shard, o->shard_path, &watch, err);
    if (st) return st;
    if ((st = check_unchanged(o, shard.path, err))) goto out;
    st = list_members(&list, &data, &bad, o, shard.path, err);
    if (bad && o->skip_bad) {
        why = *err;
        st = save_bad(out_path, o, shard.path, &why, err);
        if (!st) st = mode_captions_load(c, out_path, err);
    }
    if (bad || st || (o->strict && (st = check_strict(&list, o->shard_path, err)))) goto out;

    verdicts = mode_xcalloc(BLOCK_SAMPLES, sizeof *verdicts);
    struct work w = {.o = o, .data = &data, .list = &list, .verdicts = verdicts};
    while (n_done < list.n_groups) {
        const size_t n = list.n_groups - n_done < BLOCK_SAMPLES ? list.n_groups - n_done : BLOCK_SAMPLES;
        w.first = n_done;
        mode_parallel_for((int64_t)n, one_sample, &w);
        n_done += n;
        for (size_t i = 0; i < n; i++) {
            struct verdict *v = &verdicts[i];
            const enum mode_fate fate = (enum mode_fate)v->sample.fate;
            if (v->failed && !st) {
                if (err) *err = v->err;
                st = mode_error_prefix(err, v->failed, "%s, sample %zu", o->shard_path, w.first + i);
            } else if (!st) {
                if (fate != MODE_FATE_KEPT && o->reject) o->reject(o->ctx, (uint32_t)(w.first + i), fate, v->err.text);
                add_verdict(&made, v);
            }
            verdict_clear(v);
        }
        if (st) goto out;
        if (o->progress && !o->progress(o->ctx, n_done, list.n_groups)) {
            st = MODE_FAIL(err, MODE_E_STOPPED, "%s: stopped after %zu of %zu sample%s", o->shard_path, n_done,
                           list.n_groups, MODE_PLURAL(list.n_groups));
            goto out;
        }
    }
    if ((st = check_unchanged(o, shard.path, err))) goto out; /* it may have changed while it was read */

    char *name = name_of(o);
    const struct mode_captions file = {.shard_name = name,
                                       .shard_size = data.file_size,
                                       .data_size = data.size,
                                       .n_samples = (uint32_t)made.n,
                                       .samples = made.samples,
                                       .warn_duplicate_ext = list.duplicate_ext,
                                       .warn_ignored_members = mode_sample_list_ignored(&list),
                                       .cut_at = list.cut ? list.cut_at : 0};
    st = mode_captions_save(&file, out_path, err);
    free(name);
    if (!st) st = mode_captions_load(c, out_path, err);
out:
    for (size_t i = 0; i < made.n; i++) {
        free((char *)(uintptr_t)made.samples[i].key);
        free((struct mode_box *)(uintptr_t)made.samples[i].boxes);
        if (made.samples[i].fate == MODE_FATE_KEPT) free((char *)(uintptr_t)made.samples[i].caption);
    }
    free(made.samples);
    free(verdicts);
    mode_sample_list_clear(&list);
    mode_tar_data_close(&data);
    if (st) mode_error_rename(err, shard.path, o->shard_path);
    mode_shard_release(&shard);
    return st;
}
