/* Shards with planted faults: each fault is counted under its own fate, and the counts always add up. */
#include "base/file.h"
#include "base/str.h"
#include "picture_fixture.h"
#include "pipeline/captions.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-extract-XXXXXX";
static char *tar_path, *out_path;
static struct bytes jpeg, png;
static struct mode_error err;

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    tar_path = mode_path_join(dir, "0.tar");
    out_path = mode_path_join(dir, "captions.bin");
    jpeg = fixture_jpeg(40, 30, 3, false, 1);
    png = fixture_png(20, 10, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(tar_path);
    free(out_path);
    free(jpeg.data);
    free(png.data);
    return mode_dir_remove(dir, NULL);
}

/* ---- a shard is a list of members ---- */

static struct mode_tar_writer *writer;

static void begin(void)
{
    assert_int_equal(mode_tar_writer_open(&writer, tar_path, &err), MODE_OK);
}

static void add(const char *name, const void *data, size_t size)
{
    assert_int_equal(mode_tar_writer_add(writer, name, data, size, &err), MODE_OK);
}

static void add_text(const char *name, const char *text)
{
    add(name, text, strlen(text));
}

static void add_jpeg(const char *name)
{
    add(name, jpeg.data, jpeg.size);
}

static void end(void)
{
    assert_int_equal(mode_tar_writer_finish(&writer, &err), MODE_OK);
}

static struct mode_captions_options defaults(void)
{
    struct mode_captions_options o = {
        .shard_path = tar_path, .shard_name = "x/0.tar", .seed = 1, .limits = MODE_IMAGE_LIMITS_DEFAULT};
    assert_int_equal(mode_text_keys_parse(&o.keys, NULL, 0, &err), MODE_OK);
    return o;
}

static void check_sums(const struct mode_captions *c)
{
    uint64_t sum = 0;
    for (int f = 0; f < MODE_FATE_COUNT; f++) sum += c->fate_count[f];
    assert_int_equal(sum, c->n_samples);
    assert_int_equal(c->fate_count[MODE_FATE_KEPT], c->n_rows);
}

static struct mode_captions extract_ok(const struct mode_captions_options *o)
{
    struct mode_captions c;
    enum mode_status st = mode_captions_extract(&c, out_path, o, &err);
    if (st) fail_msg("%s", err.text);
    check_sums(&c);
    return c;
}

/* ---- tests ---- */

struct heard {
    uint32_t n;
    char why[64][160];
};

static void hear(void *ctx, uint32_t sample, enum mode_fate fate, const char *why)
{
    struct heard *h = ctx;
    (void)sample, (void)fate;
    assert_true(h->n < 64);
    snprintf(h->why[h->n++], sizeof h->why[0], "%s", why);
    assert_true(why[0] != '\0');
}

static void test_each_fault_has_its_fate(void **state)
{
    (void)state;
    struct bytes big_jpeg = fixture_jpeg(8, 8, 3, false, 3), cmyk = fixture_jpeg(24, 24, 4, false, 4),
                 grey = fixture_jpeg(24, 24, 1, true, 5), big_png = fixture_png(8, 8, 6);
    fixture_jpeg_claim(&big_jpeg, 10000, 10000);
    memcpy(big_png.data + 16, "\0\0\x27\x10\0\0\x27\x10", 8); /* 10000 x 10000; the header's CRC is now wrong as well */
    uint8_t *corrupt = mode_xmalloc(jpeg.size);
    memcpy(corrupt, jpeg.data, jpeg.size);
    memset(corrupt + jpeg.size / 2, 0xff, jpeg.size / 4);
    char *deep = mode_xmalloc(100);
    memset(deep, '[', 99);
    deep[99] = '\0';
    char *large = mode_xmalloc((2 << 20) + 1);
    memset(large, 'x', 2 << 20);
    large[2 << 20] = '\0';

    static const struct {
        const char *key, *ext, *text; /* text NULL: none */
        enum mode_fate fate;
        const char *caption;
    } cases[] = {
        {"a", "txt", "  a cat \n", MODE_FATE_KEPT, "a cat"},
        {"b", "json", "{\"texts\": [\"one\"]}", MODE_FATE_KEPT, "one"},
        {"c", "json", "{\"texts\": [[\"alt\", \"a pair\"]]}", MODE_FATE_KEPT, "a pair"},
        {"d", "json", "{\"caption\": \"field\", \"texts\": [\"not this\"]}", MODE_FATE_KEPT, "field"},
        {"e", "json", "{\"caption\": \"\", \"texts\": [\"\", \"\\\"\", null, \"fallback\"]}", MODE_FATE_KEPT,
         "fallback"},
        {"f", "json",
         "{\"caption\": \"nan is fine\", \"score\": NaN, \"low\": -Infinity, \"id\": 99999999999999999999}",
         MODE_FATE_KEPT, "nan is fine"},
        {"g", "json", "\xef\xbb\xbf{\"caption\": \"marked\"}", MODE_FATE_KEPT, "marked"},
        {"h", "json", "{\"texts\": []}", MODE_FATE_EMPTY_CAPTION, ""},
        {"i", "json", "{\"texts\": [\" \", \"\\t\"]}", MODE_FATE_EMPTY_CAPTION, ""},
        {"j", "json", "{\"caption\": null}", MODE_FATE_EMPTY_CAPTION, ""},
        {"k", "json", "{\"caption\": NaN}", MODE_FATE_EMPTY_CAPTION, ""},
        {"l", "txt", "\"", MODE_FATE_EMPTY_CAPTION, ""},
        {"m", "txt", "", MODE_FATE_EMPTY_CAPTION, ""},
        {"n", "txt", " \n\t ", MODE_FATE_EMPTY_CAPTION, ""},
        {"o", "json", "{\"url\": \"http://x\"}", MODE_FATE_NO_CAPTION, ""},
        {"p", NULL, NULL, MODE_FATE_NO_CAPTION, ""},
        {"q", "json", "{\"caption\": \"cut", MODE_FATE_BAD_JSON, ""},
        {"r", "json", "{\"caption\": 3}", MODE_FATE_BAD_JSON, ""},
        {"s", "json", "[1, 2]", MODE_FATE_BAD_JSON, ""},
        {"t", "json", "{\"caption\": \"x\", \"caption\": \"y\"}", MODE_FATE_BAD_JSON, ""},
        {"u", "txt", "caf\xe9", MODE_FATE_BAD_TEXT, ""},
        {"v", "json", "{\"caption\": \"caf\xe9\"}", MODE_FATE_BAD_TEXT, ""},
        {"w", "json", "deep", MODE_FATE_BAD_JSON, ""},
        {"x", "json", "large", MODE_FATE_BAD_JSON, ""},
        {"y", "txt", "large", MODE_FATE_BAD_TEXT, ""},
    };
    enum { N_TEXT = sizeof cases / sizeof *cases };
    begin();
    for (size_t i = 0; i < N_TEXT; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.jpg", cases[i].key);
        add_jpeg(name);
        if (!cases[i].text) continue;
        snprintf(name, sizeof name, "%s.%s", cases[i].key, cases[i].ext);
        const char *text = cases[i].text;
        if (strcmp(text, "deep") == 0) text = deep;
        if (strcmp(text, "large") == 0) text = large;
        add_text(name, text);
    }
    static const char html[] = "<html><body>404 not found</body></html>";
    const struct {
        const char *name;
        const void *data;
        size_t size;
        enum mode_fate fate;
    } pictures[] = {
        {"z0.jpg", html, sizeof html, MODE_FATE_NOT_AN_IMAGE},
        {"z1.jpg", "", 0, MODE_FATE_NOT_AN_IMAGE},
        {"z2.jpg", corrupt, jpeg.size, MODE_FATE_BAD_IMAGE},
        {"z3.jpg", jpeg.data, jpeg.size / 2, MODE_FATE_BAD_IMAGE},
        {"z4.png", png.data, png.size / 2, MODE_FATE_BAD_IMAGE},
        {"z5.jpg", big_jpeg.data, big_jpeg.size, MODE_FATE_IMAGE_TOO_LARGE},
        {"z6.jpg", cmyk.data, cmyk.size, MODE_FATE_KEPT},
        {"z7.jpeg", grey.data, grey.size, MODE_FATE_KEPT},
        {"z8.jpg", png.data, png.size, MODE_FATE_KEPT}, /* the format is detected from the content, not the name */
        {"z9.seg.png", png.data, png.size, MODE_FATE_NO_IMAGE},
    };
    enum { N_PICTURES = sizeof pictures / sizeof *pictures };
    for (size_t i = 0; i < N_PICTURES; i++) {
        char name[32];
        add(pictures[i].name, pictures[i].data, pictures[i].size);
        snprintf(name, sizeof name, "%.2s.txt", pictures[i].name);
        add_text(name, "words");
    }
    end();

    struct heard heard = {0};
    struct mode_captions_options o = defaults();
    o.reject = hear;
    o.ctx = &heard;
    struct mode_captions c = extract_ok(&o);
    assert_int_equal(c.n_samples, N_TEXT + N_PICTURES);
    for (uint32_t i = 0; i < N_TEXT; i++) {
        assert_string_equal(mode_captions_sample(&c, i).key, cases[i].key);
        if (mode_captions_sample(&c, i).fate != cases[i].fate)
            fail_msg("%s: %s, expected %s", cases[i].key,
                     mode_fate_name((enum mode_fate)mode_captions_sample(&c, i).fate), mode_fate_name(cases[i].fate));
        assert_string_equal(mode_captions_sample(&c, i).caption, cases[i].caption);
    }
    assert_int_equal(mode_captions_sample(&c, 4).caption_index, 3);
    assert_int_equal(mode_captions_sample(&c, 4).caption_count, 4);
    for (uint32_t i = 0; i < N_PICTURES; i++)
        if (mode_captions_sample(&c, N_TEXT + i).fate != pictures[i].fate)
            fail_msg("%s: %s, expected %s", pictures[i].name,
                     mode_fate_name((enum mode_fate)mode_captions_sample(&c, N_TEXT + i).fate),
                     mode_fate_name(pictures[i].fate));
    assert_int_equal(heard.n, c.n_samples - c.n_rows);

    /* the index's offset and size are those of the picture */
    struct mode_tar_data d;
    assert_int_equal(mode_tar_data_open(&d, tar_path, &err), MODE_OK);
    const struct mode_sample sample = mode_captions_row(&c, 0), *s = &sample;
    assert_int_equal(s->image_size, jpeg.size);
    assert_memory_equal(d.data + s->image_offset, jpeg.data, jpeg.size);
    assert_int_equal(s->width, 40);
    assert_int_equal(s->height, 30);
    mode_tar_data_close(&d);
    mode_captions_clear(&c);
    free(big_jpeg.data), free(big_png.data), free(cmyk.data), free(grey.data);
    free(corrupt), free(deep), free(large);
}

static void test_large_png_header_is_refused_before_decoding(void **state)
{
    (void)state;
    /* signature and an IHDR of 10000 x 10000 with a valid CRC, and nothing else */
    static const uint8_t head[] = {0x89, 'P', 'N', 'G',  '\r', '\n', 0x1a, '\n', 0,    0, 0, 13, 'I', 'H', 'D',
                                   'R',  0,   0,   0x27, 0x10, 0,    0,    0x27, 0x10, 8, 2, 0,  0,   0};
    uint8_t file[64] = {0};
    memcpy(file, head, sizeof head);
    uint32_t crc = 0xffffffffu;
    for (size_t i = 12; i < 29; i++) {
        crc ^= file[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++) file[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    begin();
    add("a.png", file, 33);
    add_text("a.txt", "a bomb");
    end();
    struct mode_captions_options o = defaults();
    struct mode_captions c = extract_ok(&o);
    assert_int_equal(c.fate_count[MODE_FATE_IMAGE_TOO_LARGE], 1);
    assert_int_equal(mode_captions_sample(&c, 0).width, 10000);
    mode_captions_clear(&c);
}

static void test_grouping(void **state)
{
    (void)state;
    begin();
    add_text("__meta__/info.json", "{}"); /* ignored: meta        */
    add_text("README", "no dot");         /* ignored: no extension */
    add_text(".hidden.txt", "x");         /* ignored: hidden       */
    add_text("d/.x.txt", "x");            /* ignored: hidden       */
    add_text("/abs.txt", "x");            /* ignored: unsafe       */
    add_text("d/../e.txt", "x");          /* ignored: unsafe       */
    add_jpeg("d/a.JPG");                  /* 0: extension case, any order */
    add_text("d/a.TXT", "upper");
    add_text("e/a.txt", "other folder"); /* 1: the folder is part of the key */
    add_jpeg("e/a.jpg");
    add_jpeg("f.jpg"); /* 2: picture repeated: no caption */
    add_jpeg("f.jpg"); /* 3: a new sample       */
    add_text("f.txt", "second f");
    add_jpeg("g.v1.0.jpg"); /* 4: key g, extension v1.0.jpg: no image */
    add_text("g.txt", "dots");
    add_jpeg("d/a.jpg"); /* 5: the key of an earlier sample again */
    add_text("d/a.txt", "again");
    end();
    struct mode_captions_options o = defaults();
    struct mode_captions c = extract_ok(&o);
    static const enum mode_fate fates[] = {MODE_FATE_KEPT, MODE_FATE_KEPT,     MODE_FATE_NO_CAPTION,
                                           MODE_FATE_KEPT, MODE_FATE_NO_IMAGE, MODE_FATE_DUPLICATE_KEY};
    assert_int_equal(c.n_samples, 6);
    for (uint32_t i = 0; i < 6; i++) assert_int_equal(mode_captions_sample(&c, i).fate, fates[i]);
    assert_string_equal(mode_captions_sample(&c, 0).key, "d/a");
    assert_string_equal(mode_captions_row(&c, 1).caption, "other folder");
    assert_string_equal(mode_captions_row(&c, 2).caption, "second f");
    assert_int_equal(c.warn_duplicate_ext, 1);
    assert_int_equal(c.warn_ignored_members, 6);
    assert_int_equal(c.cut_at, 0);
    mode_captions_clear(&c);

    o.strict = true;
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, ": 1 sample repeats an extension"));
}

static void test_tars_without_rows(void **state)
{
    (void)state;
    struct mode_captions_options o = defaults();
    begin();
    end();
    struct mode_captions c = extract_ok(&o);
    assert_int_equal(c.n_samples, 0);
    mode_captions_clear(&c);
    begin();
    add_text("a.txt", "words only");
    add_text("b.json", "{}");
    end();
    c = extract_ok(&o);
    assert_int_equal(c.n_rows, 0);
    assert_int_equal(c.fate_count[MODE_FATE_NO_IMAGE], 2);
    mode_captions_clear(&c);

    FILE *f = fopen(tar_path, "wb");
    for (int i = 0; i < 100; i++) fputs("this is not a tar at all\n", f);
    fclose(f);
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "not a tar"));
    assert_int_equal(truncate(tar_path, 0), 0);
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_FORMAT);
    unlink(tar_path);
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_NOINPUT);
}

static void test_a_cut_tar_keeps_what_is_whole(void **state)
{
    (void)state;
    enum { N = 5 };
    begin();
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.json", i);
        add_text(name, "{\"texts\": [\"words\"]}");
        snprintf(name, sizeof name, "%d.jpg", i);
        add_jpeg(name);
    }
    end();
    char *whole;
    size_t size;
    assert_int_equal(mode_file_read(tar_path, 0, &whole, &size, &err), MODE_OK);
    const size_t sample = 512 + 512 + 512 + (jpeg.size + 511) / 512 * 512;
    assert_int_equal(size, N * sample + 1024);
    struct mode_captions_options o = defaults();
    for (size_t n = 512; n <= size; n += n % 512 == 0 ? 100 : 412) { /* every boundary, and a byte within each block */
        FILE *f = fopen(tar_path, "wb");
        assert_int_equal(fwrite(whole, 1, n, f), n);
        fclose(f);
        struct mode_captions c = extract_ok(&o);
        /* complete samples: all of their data is there, with or without the block's padding */
        size_t n_whole = 0;
        while (n_whole < N && n >= n_whole * sample + 1536 + jpeg.size) n_whole++;
        assert_int_equal(c.n_rows, n_whole);
        const size_t rest = n - n_whole * sample;
        const bool begun = n_whole < N && n > n_whole * sample && rest >= 512;
        assert_int_equal(c.n_samples, n_whole + begun);
        assert_int_equal(c.fate_count[MODE_FATE_TRUNCATED], begun);
        const bool has_end = n >= N * sample + 512 || (n > N * sample);
        assert_true((c.cut_at != 0) == !has_end || n == 512);
        mode_captions_clear(&c);
    }
    free(whole);
}

static void test_a_damaged_header_is_an_error(void **state)
{
    (void)state;
    begin();
    add_jpeg("a.jpg");
    add_text("a.txt", "x");
    end();
    FILE *f = fopen(tar_path, "r+b");
    fseek(f, (long)(512 + (jpeg.size + 511) / 512 * 512 + 130), SEEK_SET);
    fputc('7', f);
    fclose(f);
    struct mode_captions c;
    struct mode_captions_options o = defaults();
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "checksum"));
}

static void put_tar(const void *bytes, size_t n)
{
    FILE *f = fopen(tar_path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void test_contents_that_are_no_tar_may_be_left_out(void **state)
{
    (void)state;
    static const char page[] = "<html>no such file</html>", gz[] = "\x1f\x8b\x08 and then nothing of the kind";
    struct mode_captions_options o = defaults();
    struct mode_captions c;
    char *whole, *with, *without;
    size_t size, n_with, n_without;
    begin();
    add_jpeg("a.jpg");
    add_text("a.txt", "x");
    add_jpeg("b.jpg");
    add_text("b.txt", "y");
    end();
    assert_int_equal(mode_file_read(tar_path, 0, &whole, &size, &err), MODE_OK);
    const size_t second = 512 + (jpeg.size + 511) / 512 * 512 + 1024;

    for (int skip = 0; skip < 2; skip++) { /* of a good shard the bytes are the same */
        o.skip_bad = skip;
        c = extract_ok(&o);
        assert_null(c.bad);
        mode_captions_clear(&c);
        assert_int_equal(mode_file_read(out_path, 0, skip ? &with : &without, skip ? &n_with : &n_without, &err),
                         MODE_OK);
    }
    assert_int_equal(n_with, n_without);
    assert_memory_equal(with, without, n_with);
    free(with);
    free(without);

    whole[second + 130] = '7';
    const struct {
        const void *bytes;
        size_t n;
        const char *why;
    } cases[] = {{page, sizeof page - 1, "is not a tar (25 bytes, the first four are 3c 68 74 6d)"},
                 {"", 0, "an empty file is not a tar"},
                 {gz, sizeof gz - 1, "is gzip and damaged"},
                 {whole, size, "a header that fails its checksum at byte"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_tar(cases[i].bytes, cases[i].n);
        unlink(out_path);
        o.skip_bad = false;
        assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_FORMAT);
        assert_false(mode_file_exists(out_path));
        o.skip_bad = true;
        o.strict = i % 2; /* which is about samples */
        c = extract_ok(&o);
        assert_int_equal(c.n_samples, 0);
        assert_int_equal(c.n_rows, 0);
        assert_int_equal(c.shard_size, cases[i].n);
        assert_int_equal(c.data_size, cases[i].n); /* nobody is to unpack it */
        assert_string_equal(c.shard_name, "x/0.tar");
        assert_non_null(c.bad);
        assert_memory_equal(c.bad, cases[i].why, strlen(cases[i].why)); /* without the path, and without hints */
        assert_null(strstr(c.bad, "HINT"));
        mode_captions_clear(&c);
        o.shard_mtime_ns = 1; /* it is being written: that passes */
        assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "must not change"));
        o.shard_mtime_ns = 0;
    }
    free(whole);

    o.strict = true;
    begin();
    add_jpeg("a.jpg");
    add_jpeg("a.jpg");
    end();
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_VALUE); /* a tar that strict refuses */
    unlink(tar_path);
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_NOINPUT);
    assert_int_equal(mkdir(tar_path, 0777), 0);
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_NOINPUT);
    rmdir(tar_path);
}

static void test_a_sentence_has_one_hint(void **state)
{
    (void)state;
    char *text = mode_captions_bad_hint("a.tar: is not a tar", "--x");
    assert_string_equal(text, "a.tar: is not a tar. HINT: --x skips shards that cannot be read");
    free(text);
    text = mode_captions_bad_hint("a.tar: is not a tar. HINT: a web page?", "--x");
    assert_string_equal(text, "a.tar: is not a tar. HINT: a web page? (--x skips shards that cannot be read)");
    free(text);
}

static void test_a_source_of_bad_shards_is_an_error(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_bad, n;
        bool good;
    } cases[] = {{0, 1, true},  {1, 1, false},  {1, 2, true},        {2, 2, false},       {2, 19, false},
                 {2, 20, true}, {3, 20, false}, {1000, 10000, true}, {1001, 10000, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const enum mode_status st = mode_captions_check_bad(cases[i].n_bad, cases[i].n, "data.train", "s/3.tar",
                                                            "is not a tar", &err);
        assert_int_equal(st, cases[i].good ? MODE_OK : MODE_E_VALUE);
    }
    assert_string_equal(
        err.text,
        "data.train: 1001 of 10000 shards are not tars or are corrupt; expected at most one, or a tenth of them "
        "(s/3.tar: is not a tar). HINT: is it the right source, and was it copied completely?");
}

static void test_the_draw_is_fixed_and_even(void **state)
{
    (void)state;
    enum { N = 300 };
    begin();
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "%04d.json", i);
        add_text(name, "{\"texts\": [\"zero\", \"\", \"two\", \"three\"]}");
        snprintf(name, sizeof name, "%04d.png", i);
        add(name, png.data, png.size);
    }
    end();
    struct mode_captions_options o = defaults();
    struct mode_captions c = extract_ok(&o), again;
    char first[MODE_DIGEST_HEX], second[MODE_DIGEST_HEX];
    int count[4] = {0};
    assert_int_equal(mode_digest_file(out_path, first, NULL, &err), MODE_OK);
    assert_int_equal(c.n_rows, N);
    for (uint32_t i = 0; i < N; i++) {
        const struct mode_sample sample = mode_captions_row(&c, i), *s = &sample;
        static const char *const words[] = {"zero", "", "two", "three"};
        assert_string_equal(s->caption, words[s->caption_index]);
        assert_int_equal(s->caption_count, 4);
        count[s->caption_index]++;
    }
    assert_int_equal(count[1], 0);
    for (int i = 0; i < 4; i++) assert_true(i == 1 || (count[i] > 65 && count[i] < 135));
    again = extract_ok(&o);
    assert_int_equal(mode_digest_file(out_path, second, NULL, &err), MODE_OK);
    assert_string_equal(first, second);
    mode_captions_clear(&again);
    o.seed = 2;
    again = extract_ok(&o);
    int changed = 0;
    for (uint32_t i = 0; i < N; i++)
        changed += mode_captions_row(&again, i).caption_index != mode_captions_row(&c, i).caption_index;
    assert_true(changed > 150);
    mode_captions_clear(&again);
    o.seed = defaults().seed;
    o.shard_index = 7; /* another shard index, other random choices */
    again = extract_ok(&o);
    int repeated = 0;
    for (uint32_t i = changed = 0; i < N; i++) {
        const uint32_t index = mode_captions_row(&c, i).caption_index;
        changed += mode_captions_row(&again, i).caption_index != index;
        repeated += i >= 64 && mode_captions_row(&c, i - 64).caption_index == index;
    }
    assert_true(changed > 150 && repeated < 120); /* nor do choices repeat with a short period */
    mode_captions_clear(&again);
    mode_captions_clear(&c);
}

static void test_all_captions_of_a_sample_are_pairs_of_their_own(void **state)
{
    (void)state;
    begin();
    add_text("a.json", "{\"texts\": [\"zero\", \"\", [\"alt\", \"two\"], null]}");
    add("a.png", png.data, png.size);
    add_text("b.json", "{\"texts\": [\"\"]}");
    add("b.png", png.data, png.size);
    add_text("c.txt", "only one");
    add("c.png", png.data, png.size);
    end();
    struct mode_captions_options o = defaults();
    o.all = true;
    struct mode_captions c = extract_ok(&o);
    assert_int_equal(c.n_samples, 6); /* four entries of a, b as a whole, c */
    assert_int_equal(c.n_rows, 3);
    assert_int_equal(c.fate_count[MODE_FATE_EMPTY_CAPTION], 3);
    static const char *const caption[] = {"zero", "two", "only one"};
    static const uint32_t index[] = {0, 2, 0};
    for (uint32_t i = 0; i < 3; i++) {
        assert_string_equal(mode_captions_row(&c, i).caption, caption[i]);
        assert_int_equal(mode_captions_row(&c, i).caption_index, index[i]);
    }
    assert_string_equal(mode_captions_row(&c, 1).key, "a");
    assert_true(mode_captions_row(&c, 0).image_offset == mode_captions_row(&c, 1).image_offset);
    mode_captions_clear(&c);
}

/* Modify the shard after it was read, before the final check of its size and time. */
static bool write_to_shard(void *ctx, uint64_t done, uint64_t total)
{
    const struct timespec later[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 5}};
    (void)done;
    (void)total;
    return utimensat(AT_FDCWD, ctx, later, 0) == 0;
}

static void test_a_shard_changed_since_planning_is_an_error(void **state)
{
    (void)state;
    begin();
    add_jpeg("a.jpg");
    add_text("a.txt", "x");
    end();
    struct stat sb;
    assert_int_equal(stat(tar_path, &sb), 0);
    struct mode_captions_options o = defaults();
    o.shard_size = (uint64_t)sb.st_size;
    o.shard_mtime_ns = (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec;
    struct mode_captions c = extract_ok(&o);
    mode_captions_clear(&c);
    o.shard_size++;
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_VALUE);
    o.shard_size--;
    o.shard_mtime_ns++;
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "must not change"));
    o.shard_mtime_ns--;
    o.progress = write_to_shard;
    o.ctx = tar_path;
    unlink(out_path);
    assert_int_equal(mode_captions_extract(&c, out_path, &o, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "must not change"));
    assert_false(mode_file_exists(out_path));
}

static void test_selectors(void **state)
{
    (void)state;
    struct mode_text_keys k;
    const char *good[] = {"txt;json:alt", "JSON:texts[]"}, *bad[] = {"json:"}, *none[] = {""}, *list[] = {"json:[]"};
    assert_int_equal(mode_text_keys_parse(&k, good, 2, &err), MODE_OK);
    assert_int_equal(k.n, 3);
    assert_string_equal(k.key[2].ext, "json");
    assert_string_equal(k.key[2].field, "texts");
    assert_true(k.key[2].list);
    assert_int_equal(mode_text_keys_parse(&k, bad, 1, &err), MODE_E_VALUE);
    assert_int_equal(mode_text_keys_parse(&k, none, 1, &err), MODE_E_VALUE);
    assert_int_equal(mode_text_keys_parse(&k, list, 1, &err), MODE_E_VALUE);
    static const char *const commas[] = {"json:a,txt", "txt,json:a", "txt;json:a, json:b[]"};
    static const char *const right[] = {"separated by \";\": \"json:a;txt\"", "\"txt;json:a\"", "\"json:a;json:b[]\""};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(mode_text_keys_parse(&k, &commas[i], 1, &err), MODE_E_VALUE);
        if (!strstr(err.text, right[i])) fail_msg("%s: %s, expected %s", commas[i], err.text, right[i]);
    }
}

static void test_boxes_of_faces_are_kept_with_the_sample(void **state)
{
    (void)state;
    begin();
    add_jpeg("a.jpg"); /* 40 x 30 */
    add_text("a.json", "{\"texts\": [\"one\", \"two\"], \"face_bbox\": [[0.5, 0.5, 1, 1], [0, 0, 0.25, 0.1]]}");
    add_jpeg("b.jpg");
    add_text("b.json", "{\"texts\": [\"three\"], \"face_bbox\": null}");
    add_jpeg("c.jpg");
    add_text("c.json", "{\"texts\": [\"four\"], \"face_bbox\": [[1, 2, 3]]}");
    add_jpeg("d.jpg");
    add_text("d.txt", "no JSON, no faces");
    add_jpeg("e.jpg");
    add_text("e.txt", "a caption");
    add_text("e.json", "{\"face_bbox\": [[1, 2, 3, 4]]}");
    end();
    struct heard h = {0};
    struct mode_captions_options o = defaults();
    o.all = true;
    o.reject = hear;
    o.ctx = &h;
    struct mode_captions c = extract_ok(&o);
    assert_int_equal(c.n_rows, 6); /* no filter */
    assert_int_equal(c.n_boxes, 0);
    mode_captions_clear(&c);
    assert_int_equal(mode_face_key_parse(&o.blur, "json:face_bbox", &err), MODE_OK);
    c = extract_ok(&o);
    assert_int_equal(c.n_rows, 5);
    assert_int_equal(c.fate_count[MODE_FATE_BAD_JSON], 1);
    assert_int_equal(h.n, 1);
    assert_non_null(strstr(h.why[0], "face_bbox: box 0"));
    assert_int_equal(c.n_boxes, 5);
    assert_int_equal(c.n_blurred, 3);
    for (uint32_t i = 0; i < 2; i++) {
        static const struct mode_box want[] = {{20, 15, 40, 30}, {0, 0, 10, 3}};
        const struct mode_sample sample = mode_captions_row(&c, i), *s = &sample;
        assert_int_equal(s->n_boxes, 2);
        assert_memory_equal(s->boxes, want, sizeof want);
    }
    assert_int_equal(mode_captions_row(&c, 3).n_boxes, 0);
    assert_int_equal(mode_captions_row(&c, 4).n_boxes, 1);
    mode_captions_clear(&c);
    assert_int_equal(mode_face_key_parse(&o.blur, "face_bbox", &err), MODE_E_VALUE);
    assert_int_equal(mode_face_key_parse(&o.blur, "json:a;json:b", &err), MODE_E_VALUE);
}

/* A sparse shard of more than 5 GiB: offsets beyond 4 GiB are right. */
static void test_places_beyond_four_gib(void **state)
{
    (void)state;
    const off_t hole = (off_t)5 << 30;
    struct mode_captions_options o = defaults();
    struct mode_captions c;
    char *data;
    size_t size;
    begin();
    add_text("big.bin", "x");
    add_jpeg("a.jpg");
    add_text("a.txt", "far away");
    end();
    assert_int_equal(mode_file_read(tar_path, 0, &data, &size, &err), MODE_OK);
    unsigned sum = 0;
    snprintf(data + 124, 12, "%011llo", (unsigned long long)hole); /* big.bin has 5 GiB */
    memset(data + 148, ' ', 8);
    for (int i = 0; i < 512; i++) sum += (unsigned char)data[i];
    snprintf(data + 148, 8, "%06o", sum);
    int fd = open(tar_path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, 512, 0), 512);
    assert_int_equal(pwrite(fd, data + 1024, size - 1024, 512 + hole), size - 1024);
    close(fd);
    if (mode_captions_extract(&c, out_path, &o, &err)) fail_msg("%s", err.text);
    assert_int_equal(c.n_samples, 2);
    assert_int_equal(c.n_rows, 1);
    const struct mode_sample far = mode_captions_row(&c, 0);
    assert_string_equal(far.caption, "far away");
    assert_int_equal(far.image_offset, 512 + hole + 512);
    assert_int_equal(far.image_size, jpeg.size);
    assert_int_equal(c.shard_size, 512 + hole + (off_t)size - 1024);
    mode_captions_clear(&c);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fault_has_its_fate),
        cmocka_unit_test(test_large_png_header_is_refused_before_decoding),
        cmocka_unit_test(test_grouping),
        cmocka_unit_test(test_tars_without_rows),
        cmocka_unit_test(test_a_cut_tar_keeps_what_is_whole),
        cmocka_unit_test(test_a_damaged_header_is_an_error),
        cmocka_unit_test(test_contents_that_are_no_tar_may_be_left_out),
        cmocka_unit_test(test_a_sentence_has_one_hint),
        cmocka_unit_test(test_a_source_of_bad_shards_is_an_error),
        cmocka_unit_test(test_the_draw_is_fixed_and_even),
        cmocka_unit_test(test_all_captions_of_a_sample_are_pairs_of_their_own),
        cmocka_unit_test(test_a_shard_changed_since_planning_is_an_error),
        cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_boxes_of_faces_are_kept_with_the_sample),
        cmocka_unit_test(test_places_beyond_four_gib),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
