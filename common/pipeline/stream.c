#include "pipeline/stream.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/str.h"
#include "cluster/centres.h"
#include "data/captions.h"
#include "data/safetensors.h"
#include "data/tar.h"
#include "data/tokenizer.h"
#include "ensemble/selection.h"
#include "pipeline/shard_ahead.h"
#include "pipeline/windows.h"
#include "remote/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A compressed shard has no random access: it is kept decompressed, in memory up to this sum, beyond it in a file. */
#define IN_MEMORY_BYTES ((uint64_t)2 << 30)

struct shard {
    struct mode_captions captions;
    char *tar;
    struct mode_tar_data unpacked; /* a compressed shard, decompressed in memory */
    bool spilled;                  /* ... or at spill_at in the stream's spill file */
    uint64_t spill_at;
    uint64_t first_row; /* index of its row 0 among the rows of all shards */
};

struct mode_stream {
    struct shard *shards;
    size_t n_shards;
    uint64_t in_memory, spilled; /* bytes of decompressed shards in memory and in the spill file */
    int spill;                   /* an unlinked file, or -1 */
    struct mode_pool pool;
    double scale_min, scale_max;
    uint64_t seed;
    struct mode_preprocess preprocess;
    int context;
    const struct mode_tokenizer *tokenizer;
    uint64_t part, parts;
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total);
    void *fetching_ctx;
    pthread_mutex_t lock;           /* of fetched, and held over calls of fetching */
    uint64_t fetched, remote_bytes; /* bytes of remote shards: fetched, in total */
    struct mode_remote_link **link; /* [n_links], a connection per thread; NULL: pictures are never fetched alone */
    int n_links;
    struct mode_shard_ahead *ahead; /* prefetcher of an order by windows, or NULL */
    uint64_t samples;
    char *warning;
    uint32_t *rows, *epochs; /* [cap] of the batch being filled */
    int64_t cap;
};

enum mode_status mode_batch_init(struct mode_batch *b, int64_t size, int side, int context, struct mode_error *err)
{
    size_t pixels, ids;
    *b = (struct mode_batch){.size = size};
    if (size < 1) return MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld pairs, at least 1 is needed", (long long)size);
    if (!mode_mul_size((size_t)size, (size_t)side * (size_t)side * 3 * sizeof(float), &pixels) ||
        !mode_mul_size((size_t)size, (size_t)context * sizeof(int32_t), &ids))
        return MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld pairs does not fit any memory", (long long)size);
    b->pixels = side > 0 ? mode_memory_pages(pixels) : NULL; /* page-aligned: a GPU's backend pins them */
    b->ids = malloc(ids);
    b->n_ids = malloc((size_t)size * sizeof *b->n_ids);
    if ((b->pixels || side == 0) && b->ids && b->n_ids) return MODE_OK;
    mode_batch_clear(b);
    return MODE_FAIL(err, MODE_E_MEMORY, "no memory for a batch of %lld pairs (%zu bytes)", (long long)size,
                     pixels + ids);
}

void mode_batch_clear(struct mode_batch *b)
{
    free(b->pixels);
    free(b->ids);
    free(b->n_ids);
    *b = (struct mode_batch){0};
}

/* Of a shard without rows nothing is read. It may be one that cannot be. */
static bool is_read(const struct shard *s)
{
    return s->captions.n_rows > 0;
}

static enum mode_status open_shard(struct shard *s, const struct mode_stream_shard *from, uint64_t first_row,
                                   struct mode_error *err)
{
    enum mode_status st;
    struct stat sb;
    s->first_row = first_row;
    s->tar = mode_xstrdup(from->tar);
    if ((st = mode_captions_load(&s->captions, from->captions, err))) return st;
    if (!is_read(s)) return MODE_OK;
    const bool remote = mode_remote_is(from->tar);
    if (!remote && stat(from->tar, &sb) != 0) return mode_input_fail(err, errno, from->tar, "be examined");
    const uint64_t size = remote ? mode_remote_bytes(from->tar) : (uint64_t)sb.st_size;
    if (size != s->captions.shard_size)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "shard %s is %llu bytes, it was %llu when its captions were extracted: it has changed since",
                         from->tar, (unsigned long long)size, (unsigned long long)s->captions.shard_size);
    return MODE_OK;
}

/* The download of one shard. */
struct download {
    struct mode_stream *stream;
    uint64_t seen; /* bytes of it that are counted in stream->fetched */
};

static bool on_fetched(void *ctx, uint64_t done, uint64_t total)
{
    struct download *w = ctx;
    struct mode_stream *s = w->stream;
    (void)total;
    if (!s->fetching) return true;
    pthread_mutex_lock(&s->lock);
    if (done > w->seen) {
        s->fetched += done - w->seen;
        w->seen = done;
    }
    const bool yes = s->fetching(s->fetching_ctx, s->fetched, s->remote_bytes);
    pthread_mutex_unlock(&s->lock);
    return yes;
}

/* The request of one picture: reports progress, and checks for a stop, only after its first second. */
struct wait {
    struct mode_stream *stream;
    double since;
};

static bool goes_on(void *ctx, uint64_t done, uint64_t total)
{
    const struct wait *w = ctx;
    struct mode_stream *s = w->stream;
    (void)done;
    (void)total;
    if (!s->fetching || mode_clock_s() - w->since < 1) return true;
    pthread_mutex_lock(&s->lock);
    const bool yes = s->fetching(s->fetching_ctx, s->fetched, s->remote_bytes);
    pthread_mutex_unlock(&s->lock);
    return yes;
}

static enum mode_status hold(struct mode_shard_file *file, struct mode_stream *s, const struct shard *shard,
                             struct mode_error *err)
{
    struct download download = {.stream = s};
    const struct mode_remote_watch watch = {.going = on_fetched, .ctx = &download};
    return mode_shard_hold(file, shard->tar, &watch, err);
}

struct fetching {
    struct mode_stream *stream;
    pthread_mutex_t lock; /* of what follows */
    int64_t failed;       /* lowest shard that failed so far; n_shards: none */
    struct mode_error err;
};

static void fetch_one(void *ctx, int64_t i, int thread)
{
    struct fetching *f = ctx;
    struct mode_stream *s = f->stream;
    struct mode_shard_file file;
    struct mode_error err = {0};
    (void)thread;
    pthread_mutex_lock(&f->lock);
    const bool in_vain = f->failed < (int64_t)s->n_shards;
    pthread_mutex_unlock(&f->lock);
    if (in_vain || !is_read(&s->shards[i]) || !mode_remote_is(s->shards[i].tar)) return;
    if (hold(&file, s, &s->shards[i], &err)) {
        pthread_mutex_lock(&f->lock);
        if (i < f->failed) {
            f->failed = i;
            f->err = err;
        }
        pthread_mutex_unlock(&f->lock);
    }
    mode_shard_release(&file);
}

/* Let pictures be fetched one by one, over a connection per thread. */
static void allow_pictures(struct mode_stream *s)
{
    s->n_links = mode_parallel_threads();
    s->link = mode_xcalloc((size_t)s->n_links, sizeof *s->link);
}

/* Download all shards before the first step, so that no step waits for them. If they do not all fit into the cache,
 * they would evict each other: then pictures are fetched one by one when a step needs them. */
static enum mode_status fetch_shards(struct mode_stream *s, struct mode_error *err)
{
    struct fetching f = {.stream = s, .lock = PTHREAD_MUTEX_INITIALIZER, .failed = (int64_t)s->n_shards};
    uint64_t room = 0;
    enum mode_status st = s->remote_bytes ? mode_shard_room(&room, err) : MODE_OK;
    if (st) return st;
    if (s->remote_bytes > room) {
        allow_pictures(s);
        return MODE_OK;
    }
    mode_parallel_for((int64_t)s->n_shards, fetch_one, &f);
    pthread_mutex_destroy(&f.lock);
    if (f.failed == (int64_t)s->n_shards) return MODE_OK;
    if (err) *err = f.err;
    return f.err.status;
}

/* An unlinked file in folder: the kernel frees it when the process ends, however that happens. */
static enum mode_status open_spill(int *fd, const char *folder, struct mode_error *err)
{
    char *path = mode_path_join(folder, "unpacked-XXXXXX");
    enum mode_status st = MODE_OK;
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd < 0)
        st = mode_output_fail(err, errno, path, "be created");
    else
        unlink(path);
    free(path);
    return st;
}

static enum mode_status spill(struct mode_stream *s, struct shard *shard, const char *folder, struct mode_error *err)
{
    const struct mode_tar_data *d = &shard->unpacked;
    size_t done = 0;
    enum mode_status st = s->spill < 0 ? open_spill(&s->spill, folder, err) : MODE_OK;
    if (st) return st;
    while (done < d->size) {
        ssize_t n = pwrite(s->spill, d->data + done, d->size - done, (off_t)(s->spilled + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return MODE_FAIL(
                err, MODE_E_IO,
                "shard %s: %zu bytes unpacked, after %llu of other compressed shards, cannot be written to "
                "%s: %s. HINT: unpack the shards to plain tars, which are read in place",
                shard->tar, d->size, (unsigned long long)(s->in_memory + s->spilled), folder,
                n < 0 ? strerror(errno) : "no room");
        done += (size_t)n;
    }
    shard->spilled = true;
    shard->spill_at = s->spilled;
    s->spilled += d->size;
    mode_tar_data_close(&shard->unpacked);
    return MODE_OK;
}

static enum mode_status unpack_shard(struct mode_stream *s, struct shard *shard, const struct mode_stream_options *o,
                                     struct mode_error *err)
{
    const uint64_t size = shard->captions.data_size, most = o->in_memory ? o->in_memory : IN_MEMORY_BYTES;
    enum mode_status st;
    if (!is_read(shard) || size == shard->captions.shard_size) return MODE_OK; /* not compressed */
    struct mode_shard_file file;
    if ((st = hold(&file, s, shard, err))) return st;
    if ((st = mode_tar_data_open(&shard->unpacked, file.path, err))) mode_error_rename(err, file.path, shard->tar);
    mode_shard_release(&file);
    if (st) return st;
    if (shard->unpacked.size != size)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "shard %s unpacks to %zu bytes, it was %llu when its captions were extracted: it has changed "
                         "since",
                         shard->tar, shard->unpacked.size, (unsigned long long)size);
    if (s->in_memory + size > most) return spill(s, shard, o->scratch ? o->scratch : ".", err);
    s->in_memory += size;
    return MODE_OK;
}

/* coarse [n_rows]: the group of each row of one shard. */
static enum mode_status read_assignment(int32_t *coarse, const char *path, uint32_t n_rows,
                                        const struct mode_centres *centres, const char *centres_digest,
                                        struct mode_error *err)
{
    struct mode_safetensors f = {0};
    const struct mode_tensor *fine = NULL;
    const int64_t dim[] = {n_rows};
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    if ((st = mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, dim, &fine, err))) goto out;
    const char *digest = mode_safetensors_meta(&f, "centres");
    if (!mode_centres_know(centres, centres_digest, digest)) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: assigned with centres %.12s, the model is to be trained with centres %.12s: assign again",
                       path, digest ? digest : "(unnamed)", centres_digest);
        goto out;
    }
    const int32_t *id = fine->data;
    for (uint32_t i = 0; i < n_rows; i++) {
        if (id[i] < 0 || id[i] >= centres->m) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: fine_id of row %u is %d, expected 0 to %d", path, i, id[i],
                           centres->m - 1);
            goto out;
        }
        coarse[i] = centres->fine_to_coarse[id[i]];
    }
out:
    mode_safetensors_close(&f);
    return st;
}

/* A selection as a map of fine centres to two groups: 1 chosen, 0 not. */
static enum mode_status load_selection(struct mode_centres *map, char digest[MODE_DIGEST_HEX], const char *path,
                                       struct mode_error *err)
{
    struct mode_selection s;
    enum mode_status st = mode_selection_load(&s, path, err);
    if (!st) {
        *map = (struct mode_centres){.m = s.m, .n = 2, .fine_to_coarse = s.chosen, .grown_from = s.grown_from};
        snprintf(digest, MODE_DIGEST_HEX, "%s", s.centres);
        s.chosen = NULL;
        s.grown_from = NULL;
    }
    mode_selection_clear(&s);
    return st;
}

/* coarse [rows of all shards]. expert: the group whose rows are the pool's own; checked here. */
static enum mode_status read_groups(int32_t *coarse, const struct mode_stream *s, const struct mode_stream_options *o,
                                    int32_t expert, struct mode_error *err)
{
    struct mode_centres centres = {0};
    char digest[MODE_DIGEST_HEX];
    enum mode_status st = o->selection ? load_selection(&centres, digest, o->selection, err)
                                       : mode_digest_file(o->centres, digest, NULL, err);
    if (st) return st;
    if (!o->selection && (st = mode_centres_load(&centres, o->centres, err))) goto out;
    if (expert < 0 || expert >= centres.n) {
        st = MODE_FAIL(err, MODE_E_VALUE, "expert %d does not exist, %s has coarse groups 0 to %d", expert, o->centres,
                       centres.n - 1);
        goto out;
    }
    for (size_t i = 0; !st && i < s->n_shards; i++)
        st = read_assignment(coarse + s->shards[i].first_row, o->shards[i].assign, s->shards[i].captions.n_rows,
                             &centres, digest, err);
out:
    mode_centres_clear(&centres);
    return st;
}

static enum mode_status check_chosen(const int32_t *coarse, uint64_t n_rows, const char *selection,
                                     struct mode_error *err)
{
    for (uint64_t i = 0; i < n_rows; i++)
        if (coarse[i] == 1) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "none of the %llu pairs lies in a fine cluster that %s selects",
                     (unsigned long long)n_rows, selection);
}

/* Is it read from its decompressed copy? */
static bool is_unpacked(const struct shard *shard)
{
    return shard->unpacked.data || shard->spilled;
}

/* Sets up the order and the prefetcher of its shards. */
static enum mode_status order_by_windows(struct mode_stream *s, const struct mode_stream_options *o,
                                         struct mode_error *err)
{
    uint32_t *row_end = mode_xmalloc(s->n_shards * sizeof *row_end);
    const char **path = mode_xcalloc(s->n_shards, sizeof *path);
    uint64_t *bytes = mode_xcalloc(s->n_shards, sizeof *bytes), room = 0;
    bool is_far = false;
    for (size_t i = 0; i < s->n_shards; i++) {
        const struct shard *shard = &s->shards[i];
        row_end[i] = (uint32_t)(shard->first_row + shard->captions.n_rows);
        if (!is_read(shard) || is_unpacked(shard)) continue;
        path[i] = shard->tar;
        bytes[i] = mode_remote_bytes(shard->tar);
        is_far = is_far || bytes[i];
    }
    enum mode_status st = mode_pool_by_windows(&s->pool, (uint32_t)s->n_shards, row_end, o->window_shards, err);
    if (!st && is_far) st = mode_shard_room(&room, err);
    if (!st) st = mode_shard_ahead_open(&s->ahead, s->pool.windows, path, s->n_shards, room, err);
    if (!st && is_far) {
        allow_pictures(s);
        s->warning = mode_shard_ahead_warning(bytes, s->n_shards, o->window_shards, room);
    }
    free(row_end);
    free(path);
    free(bytes);
    return st;
}

enum mode_status mode_stream_open(struct mode_stream **stream, const struct mode_stream_options *o,
                                  struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int32_t *coarse = NULL;
    uint64_t n_rows = 0;
    struct mode_stream *s = mode_xcalloc(1, sizeof *s);
    *stream = NULL;
    s->spill = -1;
    s->fetching = o->fetching;
    s->fetching_ctx = o->ctx;
    pthread_mutex_init(&s->lock, NULL);
    s->samples = o->samples;
    s->scale_min = o->scale_min;
    s->scale_max = o->scale_max;
    s->seed = o->seed;
    s->preprocess = o->preprocess;
    s->context = o->context;
    s->tokenizer = o->tokenizer;
    s->part = (uint64_t)o->part;
    s->parts = o->parts ? (uint64_t)o->parts : 1;
    s->shards = mode_xcalloc(o->n_shards, sizeof *s->shards);
    if (!(o->scale_min > 0 && o->scale_min <= o->scale_max && o->scale_max <= 1)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "the crop's area range is %g to %g, expected 0 < min <= max <= 1",
                       o->scale_min, o->scale_max);
        goto out;
    }
    for (size_t i = 0; i < o->n_shards; i++) {
        struct shard *shard = &s->shards[s->n_shards++];
        if ((st = open_shard(shard, &o->shards[i], n_rows, err))) goto out;
        n_rows += shard->captions.n_rows;
        if (is_read(shard)) s->remote_bytes += mode_remote_bytes(shard->tar);
    }
    if (!o->window_shards && (st = fetch_shards(s, err))) goto out;
    for (size_t i = 0; i < s->n_shards; i++)
        if ((st = unpack_shard(s, &s->shards[i], o, err))) goto out;
    const int32_t expert = o->selection ? 1 : o->expert;
    if (expert != MODE_POOL_ALL) {
        coarse = malloc((n_rows ? n_rows : 1) * sizeof *coarse);
        if (!coarse) {
            st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the groups of %llu rows", (unsigned long long)n_rows);
            goto out;
        }
        if ((st = read_groups(coarse, s, o, expert, err))) goto out;
        if (o->selection && (st = check_chosen(coarse, n_rows, o->selection, err))) goto out;
    }
    st = mode_pool_init(&s->pool, n_rows, coarse, expert, o->out_ratio, o->seed, err);
    if (!st && o->window_shards) st = order_by_windows(s, o, err);
out:
    free(coarse);
    if (st)
        mode_stream_close(&s);
    else
        *stream = s;
    return st;
}

void mode_stream_close(struct mode_stream **stream)
{
    struct mode_stream *s = *stream;
    if (!s) return;
    mode_shard_ahead_close(&s->ahead);
    for (size_t i = 0; i < s->n_shards; i++) {
        mode_captions_clear(&s->shards[i].captions);
        mode_tar_data_close(&s->shards[i].unpacked);
        free(s->shards[i].tar);
    }
    if (s->spill >= 0) close(s->spill);
    for (int i = 0; i < s->n_links; i++) mode_remote_link_close(&s->link[i]);
    free(s->link);
    free(s->shards);
    mode_pool_clear(&s->pool);
    pthread_mutex_destroy(&s->lock);
    free(s->rows);
    free(s->epochs);
    free(s->warning);
    free(s);
    *stream = NULL;
}

const char *mode_stream_warning(const struct mode_stream *stream)
{
    return stream->warning;
}

const struct mode_pool *mode_stream_pool(const struct mode_stream *stream)
{
    return &stream->pool;
}

const struct mode_preprocess *mode_stream_preprocess(const struct mode_stream *stream)
{
    return &stream->preprocess;
}

double mode_stream_window_bytes(const struct mode_stream *s)
{
    double bytes = 0, rows = 0;
    for (size_t i = 0; i < s->n_shards; i++) {
        const struct mode_captions *c = &s->shards[i].captions;
        for (uint32_t k = 0; k < c->n_rows; k++) {
            const struct mode_sample m = mode_captions_row(c, k);
            bytes += 3.0 * m.width * m.height;
        }
        rows += c->n_rows;
    }
    return bytes / rows * (s->scale_min + s->scale_max) / 2;
}

/* The last shard whose first row is not past row. */
static const struct shard *shard_of(const struct mode_stream *s, uint64_t row)
{
    size_t lo = 0, hi = s->n_shards;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->shards[mid].first_row <= row)
            lo = mid;
        else
            hi = mid;
    }
    return &s->shards[lo];
}

static enum mode_status read_file(uint8_t *data, int fd, uint64_t at, uint64_t size, struct mode_error *err)
{
    for (uint64_t got = 0; got < size;) {
        ssize_t n = pread(fd, data + got, size - got, (off_t)(at + got));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return MODE_FAIL(err, MODE_E_IO, "reading stopped after %llu bytes: %s", (unsigned long long)got,
                             n < 0 ? strerror(errno) : "end of file");
        got += (uint64_t)n;
    }
    return MODE_OK;
}

static enum mode_status read_member(uint8_t *data, struct mode_stream *stream, const struct shard *s,
                                    const struct mode_sample *m, int thread, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    const bool is_far = mode_remote_is(s->tar);
    if (s->unpacked.data) { /* mode_captions_load checked that members lie inside */
        memcpy(data, s->unpacked.data + m->image_offset, m->image_size);
        return MODE_OK;
    }
    if (s->spilled) return read_file(data, stream->spill, s->spill_at + m->image_offset, m->image_size, err);
    const int here = stream->ahead && is_far ? mode_shard_ahead_file(stream->ahead, (size_t)(s - stream->shards)) : -1;
    if (here >= 0) return read_file(data, here, m->image_offset, m->image_size, err);
    if (stream->link && is_far) {
        struct wait wait = {stream, mode_clock_s()};
        const struct mode_remote_watch watch = {.going = goes_on, .ctx = &wait};
        return mode_shard_read(data, s->tar, m->image_offset, m->image_size, &stream->link[thread], &watch, err);
    }
    struct mode_shard_file file;
    if ((st = hold(&file, stream, s, err))) return st;
    int fd = file.hold >= 0 ? file.hold : open(file.path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        st = MODE_FAIL(err, MODE_E_IO, "it cannot be opened: %s", strerror(errno));
    else
        st = read_file(data, fd, m->image_offset, m->image_size, err);
    if (fd >= 0 && fd != file.hold) close(fd);
    mode_shard_release(&file);
    return st;
}

static enum mode_status make_pixels(const struct mode_batch *b, int64_t i, struct mode_stream *s, int thread,
                                    struct mode_error *err)
{
    const uint32_t row = s->rows[i], epoch = s->epochs[i];
    const size_t pixels = (size_t)3 * (size_t)s->preprocess.size * (size_t)s->preprocess.size;
    const struct shard *shard = shard_of(s, row);
    const struct mode_sample sample = mode_captions_row(&shard->captions, (uint32_t)(row - shard->first_row)),
                             *m = &sample;
    const struct mode_image_limits limits = {.max_pixels = (uint64_t)m->width * m->height,
                                             .max_side = m->width > m->height ? m->width : m->height,
                                             .max_bytes = m->image_size};
    const struct mode_crop_draw draw = {
        .scale_min = s->scale_min, .scale_max = s->scale_max, .seed = s->seed, .epoch = epoch, .sample = row};
    enum mode_status st;
    uint8_t *data = malloc(m->image_size ? m->image_size : 1);
    if (!data)
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for %llu bytes", (unsigned long long)m->image_size);
    else if (!(st = read_member(data, s, shard, m, thread, err))) {
        const struct mode_picture file = {
            .data = data, .size = m->image_size, .limits = &limits, .blur = m->boxes, .n_blur = m->n_boxes};
        st = b->windows ? mode_windows_add(b->windows, i, &file, &draw, err)
                        : mode_preprocess_train_file(&s->preprocess, &file, &draw, b->pixels + (size_t)i * pixels, err);
    }
    if (st && st != MODE_E_STOPPED && st != MODE_E_PEER)
        st = mode_error_prefix(err, st,
                               "shard %s, sample %s, picture of %llu bytes at byte %llu: it was readable when captions "
                               "were extracted and is not now",
                               shard->tar, m->key, (unsigned long long)m->image_size,
                               (unsigned long long)m->image_offset);
    free(data);
    return st;
}

struct fill {
    struct mode_stream *stream;
    struct mode_batch *batch;
    pthread_mutex_t lock;
    int64_t failed; /* lowest item that failed, so that the error reported does not depend on timing; size: none */
    struct mode_error error;
};

static void fill_item(void *ctx, int64_t i, int thread)
{
    struct fill *f = ctx;
    struct mode_stream *s = f->stream;
    struct mode_batch *b = f->batch;
    struct mode_error err = {0};
    if (make_pixels(b, i, s, thread, &err)) {
        pthread_mutex_lock(&f->lock);
        if (i < f->failed) {
            f->failed = i;
            f->error = err;
        }
        pthread_mutex_unlock(&f->lock);
        return;
    }
    const struct shard *shard = shard_of(s, s->rows[i]);
    const char *caption = mode_captions_row(&shard->captions, (uint32_t)(s->rows[i] - shard->first_row)).caption;
    b->n_ids[i] = mode_tokenizer_encode(s->tokenizer, caption, strlen(caption), b->ids + i * s->context, s->context);
}

static bool on_window(void *ctx, uint64_t done, uint64_t total)
{
    struct mode_stream *s = ctx;
    pthread_mutex_lock(&s->lock);
    const bool yes = !s->fetching || s->fetching(s->fetching_ctx, done, total);
    pthread_mutex_unlock(&s->lock);
    return yes;
}

/* Rows and epochs of n samples from first on. With windows, blocks until their shards are fetched. */
static enum mode_status draw(struct mode_stream *s, uint64_t first, uint64_t n, struct mode_error *err)
{
    if (!s->ahead) {
        mode_pool_draw(&s->pool, first, n, s->rows, s->epochs);
        return MODE_OK;
    }
    const uint64_t size = mode_pool_size(&s->pool), epoch = (s->samples - 1) / size; /* the last one */
    const struct mode_remote_watch watch = {.going = on_window, .ctx = s};
    uint64_t from, to, end = UINT64_MAX, unused;
    mode_pool_turns(&s->pool, first, &from, &unused); /* calls in the order of epochs, so that each is built once */
    mode_pool_draw(&s->pool, first, n, s->rows, s->epochs);
    mode_pool_turns(&s->pool, first + n - 1, &unused, &to);
    if (s->samples && epoch == s->pool.epoch)
        mode_pool_turns(&s->pool, s->samples - 1, &unused, &end);
    else if (s->samples)
        end = epoch * s->pool.windows->n + s->pool.windows->window; /* its first window, which it needs in any case */
    return mode_shard_ahead_need(s->ahead, from, to, end, &watch, err);
}

enum mode_status mode_stream_fill(struct mode_stream *s, struct mode_batch *b, uint64_t step, struct mode_error *err)
{
    uint64_t whole = (uint64_t)b->size * s->parts, first = step * whole + (uint64_t)b->size * s->part;
    if (b->size > s->cap) {
        s->rows = mode_xrealloc(s->rows, (size_t)b->size * sizeof *s->rows);
        s->epochs = mode_xrealloc(s->epochs, (size_t)b->size * sizeof *s->epochs);
        s->cap = b->size;
    }
    enum mode_status st = draw(s, first, (uint64_t)b->size, err);
    if (st) return st;
    struct fill f = {.stream = s, .batch = b, .lock = PTHREAD_MUTEX_INITIALIZER, .failed = b->size};
    if (b->windows) mode_windows_begin(b->windows);
    mode_parallel_for(b->size, fill_item, &f);
    pthread_mutex_destroy(&f.lock);
    if (f.failed < b->size) {
        if (err) *err = f.error;
        return f.error.status;
    }
    if (b->windows) mode_windows_send(b->windows, b->size);
    int32_t *to = b->ids; /* remove the padding between texts */
    for (int64_t i = 0; i < b->size; i++) {
        memmove(to, b->ids + i * s->context, (size_t)b->n_ids[i] * sizeof *to);
        to += b->n_ids[i];
    }
    b->epoch = (double)((step + 1) * whole) / mode_pool_size(&s->pool);
    return MODE_OK;
}
