/* mode-test-corpus - a small synthetic corpus of shapes for tests that run the real services.
 *
 *     mode-test-corpus OUT PAIRS PER_SHARD [fault]
 *
 * OUT/train/<i%100>/<i>.tar: json+jpg pairs ("a red square", ...); OUT/eval/{colour,shape}: classification tasks,
 * OUT/eval/retrieval_shapes. Same arguments, same bytes. With "fault" each of these is once among the first samples of
 * the first shard, and its fate is known: json without texts, empty texts, [source, caption] texts (a good one), an
 * image that is HTML, a truncated JPEG, a PNG header of 100 Mpx, a duplicate key. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum { SIDE = 48 };
static const char *const colour_name[] = {"red", "green", "blue", "yellow", "black", "purple"};
static const uint8_t colour_rgb[][3] = {{220, 30, 30},  {30, 160, 60}, {40, 60, 220},
                                        {240, 220, 40}, {20, 20, 20},  {150, 40, 170}};
static const char *const shape_name[] = {"square", "circle", "triangle", "cross"};
enum { N_COLOURS = 6, N_SHAPES = 4 };

static int inside(int shape, double x, double y) /* x, y in [-1, 1] of the shape's own box */
{
    switch (shape) {
    case 0: return x > -0.9 && x < 0.9 && y > -0.9 && y < 0.9;
    case 1: return x * x + y * y < 0.9;
    case 2: return y < 0.9 && y > 2 * (x < 0 ? -x : x) - 0.9;
    default: return (x > -0.3 && x < 0.3 && y > -1 && y < 1) || (y > -0.3 && y < 0.3 && x > -1 && x < 1);
    }
}

static void draw(uint8_t *rgb, int colour, int shape, struct mode_rng *r)
{
    double cx = 14 + 20 * mode_rng_uniform(r), cy = 14 + 20 * mode_rng_uniform(r), half = 8 + 8 * mode_rng_uniform(r);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            uint8_t *p = rgb + 3 * (y * SIDE + x);
            int in = inside(shape, (x - cx) / half, (y - cy) / half);
            for (int c = 0; c < 3; c++) p[c] = in ? colour_rgb[colour][c] : (uint8_t)(235 + mode_rng_below(r, 20));
        }
}

static uint8_t *encode(uint8_t *rgb, size_t *size)
{
    struct jpeg_compress_struct c = {0};
    struct jpeg_error_mgr e;
    unsigned char *out = NULL;
    unsigned long n = 0;
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, &n);
    c.image_width = c.image_height = SIDE;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 90, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < SIDE) {
        JSAMPROW row = rgb + 3 * SIDE * c.next_scanline;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    *size = n;
    return out;
}

static struct mode_error err;

static void must(enum mode_status st)
{
    if (!st) return;
    fprintf(stderr, "mode-test-corpus: %s\n", err.text);
    exit(mode_status_exit_code(st));
}

static void add(struct mode_tar_writer *w, const char *key, const char *ext, const void *data, size_t size)
{
    char *name = mode_xasprintf("%s.%s", key, ext);
    must(mode_tar_writer_add(w, name, data, size, &err));
    free(name);
}

static void add_text(struct mode_tar_writer *w, const char *key, const char *ext, const char *text)
{
    add(w, key, ext, text, strlen(text));
}

/* A picture of item i; colour and shape come from i's own random numbers. */
static uint8_t *picture(uint64_t set, uint64_t i, int *colour, int *shape, size_t *size)
{
    uint8_t rgb[SIDE * SIDE * 3];
    struct mode_rng r = mode_rng_for(7, MODE_RNG_TEST, set, i);
    *colour = (int)mode_rng_below(&r, N_COLOURS);
    *shape = (int)mode_rng_below(&r, N_SHAPES);
    draw(rgb, *colour, *shape, &r);
    return encode(rgb, size);
}

static void add_pair(struct mode_tar_writer *w, uint64_t i)
{
    char key[32], json[256];
    int colour, shape;
    size_t size;
    uint8_t *jpg = picture(0, i, &colour, &shape, &size);
    snprintf(key, sizeof key, "%06llu", (unsigned long long)i);
    snprintf(json, sizeof json, "{\"texts\": [\"a %s %s\", \"a drawing of a %s that is %s\", \"%s: %s\"]}",
             colour_name[colour], shape_name[shape], shape_name[shape], colour_name[colour], shape_name[shape],
             colour_name[colour]);
    add_text(w, key, "json", json);
    add(w, key, "jpg", jpg, size);
    free(jpg);
}

static void add_faults(struct mode_tar_writer *w)
{
    static const uint8_t huge_png[] = {0x89, 'P',  'N',  'G', 13, 10,   26,   10, 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0,
                                       0,    0x27, 0x10, 0,   0,  0x27, 0x10, 8,  2, 0, 0, 0,  0,   0,   0,   0};
    static const char html[] = "<!DOCTYPE html><html><body>404 Not Found</body></html>";
    int colour, shape;
    size_t size;
    uint8_t *jpg = picture(9, 0, &colour, &shape, &size);
    add_text(w, "f0", "json", "{\"caption\": 1}");
    add(w, "f0", "jpg", jpg, size);
    add_text(w, "f1", "json", "{\"texts\": []}");
    add(w, "f1", "jpg", jpg, size);
    add_text(w, "f2", "json", "{\"texts\": [[\"alt\", \"a red square\"]]}");
    add(w, "f2", "jpg", jpg, size);
    add_text(w, "f3", "json", "{\"texts\": [\"not a picture\"]}");
    add(w, "f3", "jpg", html, sizeof html - 1);
    add_text(w, "f4", "json", "{\"texts\": [\"half a picture\"]}");
    add(w, "f4", "jpg", jpg, size / 2);
    add_text(w, "f5", "json", "{\"texts\": [\"a huge picture\"]}");
    add(w, "f5", "png", huge_png, sizeof huge_png);
    add_text(w, "f6", "json", "{\"texts\": [\"a good picture\"]}");
    add(w, "f6", "jpg", jpg, size);
    add_text(w, "f7", "json", "{broken");
    add(w, "f7", "jpg", jpg, size);
    add_text(w, "f6", "json", "{\"texts\": [\"the same key again\"]}");
    add(w, "f6", "jpg", jpg, size);
    add_text(w, "f8", "json", "{\"texts\": [\"no picture\"]}");
    free(jpg);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = mode_path_join(dir, name);
    must(mode_file_write_atomic(path, text, strlen(text), &err));
    free(path);
}

static void write_task(const char *out, const char *task, int kind, int n)
{
    char *dir = mode_xasprintf("%s/eval/%s", out, task), *test = mode_path_join(dir, "test"),
         *tar = mode_path_join(test, "0.tar");
    struct mode_str classes = {0};
    struct mode_tar_writer *w = NULL;
    must(mode_dir_make(test, &err));
    if (kind < 2) {
        for (int i = 0; i < (kind ? N_SHAPES : N_COLOURS); i++)
            mode_str_printf(&classes, "%s\n", kind ? shape_name[i] : colour_name[i]);
        write_text(dir, "classnames.txt", classes.data);
        write_text(dir, "zeroshot_classification_templates.txt",
                   kind ? "a {c}\na drawing of a {c}\n" : "a {c} square\na {c} circle\nsomething {c}\n");
    } else
        write_text(dir, "dataset_type.txt", "retrieval\n");
    write_text(test, "nshards.txt", "1\n");
    must(mode_tar_writer_open(&w, tar, &err));
    for (int i = 0; i < n; i++) {
        char key[16], text[64];
        int colour, shape;
        size_t size;
        uint8_t *jpg = picture((uint64_t)kind + 1, (uint64_t)i, &colour, &shape, &size);
        snprintf(key, sizeof key, "s%07d", i);
        if (kind < 2) {
            snprintf(text, sizeof text, "%d", kind ? shape : colour);
            add_text(w, key, "cls", text);
            add(w, key, "jpg", jpg, size);
        } else {
            snprintf(text, sizeof text, "a %s %s", colour_name[colour], shape_name[shape]);
            add(w, key, "jpg", jpg, size);
            add_text(w, key, "txt", text);
        }
        free(jpg);
    }
    must(mode_tar_writer_finish(&w, &err));
    mode_str_clear(&classes);
    free(tar);
    free(test);
    free(dir);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: mode-test-corpus OUT PAIRS PER_SHARD [fault]\n");
        return 2;
    }
    const char *out = argv[1];
    long pairs = atol(argv[2]), per_shard = atol(argv[3]);
    int fault = argc > 4 && strcmp(argv[4], "fault") == 0;
    for (long first = 0, shard = 0; first < pairs; first += per_shard, shard++) {
        char *dir = mode_xasprintf("%s/train/%ld", out, shard % 100), *path = mode_xasprintf("%s/%ld.tar", dir, shard);
        struct mode_tar_writer *w = NULL;
        must(mode_dir_make(dir, &err));
        must(mode_tar_writer_open(&w, path, &err));
        if (fault && shard == 0) add_faults(w);
        for (long i = first; i < first + per_shard && i < pairs; i++) add_pair(w, (uint64_t)i);
        must(mode_tar_writer_finish(&w, &err));
        free(path);
        free(dir);
    }
    write_task(out, "colour", 0, 60);
    write_task(out, "shape", 1, 60);
    write_task(out, "retrieval_shapes", 2, 40);
    return 0;
}
