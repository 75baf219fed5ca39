/* TensorBoard's event files: bytes as TensorFlow writes them, read back by another reader; damage is detected. */
#include "data/tfevents.h"
#include "tfevents_reader.h"

#include <math.h>

/* The sums are those of RFC 3720 (B.4), masked. */
static void test_the_sums_are_crc32c(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0}, ones[32];
    memset(ones, 0xff, sizeof ones);
    const struct {
        const void *data;
        size_t n;
        uint32_t crc;
    } known[] = {{zeros, 32, 0x8a9136aa}, {ones, 32, 0x62a8ab43}, {"123456789", 9, 0xe3069283}};
    for (size_t i = 0; i < 3; i++) {
        const uint32_t c = known[i].crc, masked = (c >> 15 | c << 17) + 0xa282ead8;
        assert_int_equal(reader_masked_crc(known[i].data, known[i].n), masked);
    }
}

/* A record that tensorboard 2.21's own RecordWriter and protobuf wrote of the same event. */
static void test_the_bytes_are_tensorflow_s(void **state)
{
    (void)state;
    static const uint8_t want[] = {
        0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa3, 0x7f, 0x4b, 0x22, 0x09, 0x00, 0x00, 0x10, 0xc0, 0x0b,
        0x5a, 0xd6, 0x41, 0x1a, 0x0d, 0x62, 0x72, 0x61, 0x69, 0x6e, 0x2e, 0x45, 0x76, 0x65, 0x6e, 0x74, 0x3a, 0x32,
        0x13, 0x0a, 0x03, 0x22, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x6d, 0x53, 0x2b, 0x09, 0x09, 0x00,
        0x00, 0x20, 0xc0, 0x0b, 0x5a, 0xd6, 0x41, 0x10, 0x07, 0x3a, 0x02, 0x08, 0x01, 0x2c, 0xe1, 0x95, 0x06, 0x32,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x24, 0x19, 0x56, 0xec, 0x09, 0x00, 0x00, 0x70, 0xc0, 0x0b, 0x5a,
        0xd6, 0x41, 0x10, 0xac, 0x02, 0x2a, 0x24, 0x0a, 0x11, 0x0a, 0x0a, 0x74, 0x72, 0x61, 0x69, 0x6e, 0x2f, 0x6c,
        0x6f, 0x73, 0x73, 0x15, 0x00, 0x00, 0xb0, 0x40, 0x0a, 0x0f, 0x0a, 0x08, 0x74, 0x72, 0x61, 0x69, 0x6e, 0x2f,
        0x6c, 0x72, 0x15, 0x17, 0xb7, 0xd1, 0x38, 0x4d, 0x29, 0xdf, 0xa1};
    struct mode_str out = {0};
    mode_tfevents_version(&out, 1500000000.25);
    mode_tfevents_start(&out, 1500000000.5, 7);
    mode_tfevents_scalars(&out, 1500000001.75, 300, (struct mode_scalar[]){{"train/loss", 5.5}, {"train/lr", 1e-4}}, 2);
    assert_int_equal(out.len, sizeof want);
    assert_memory_equal(out.data, want, sizeof want);
    mode_str_clear(&out);
}

static void write_three(struct mode_str *out)
{
    mode_tfevents_version(out, 1e9);
    mode_tfevents_start(out, 1e9 + 1, 1);
    mode_tfevents_scalars(out, 1e9 + 2, 1, (struct mode_scalar[]){{"train/loss", 3.25}, {"train/scale", INFINITY}}, 2);
    mode_tfevents_scalars(out, 1e9 + 3, UINT64_C(1) << 40, (struct mode_scalar[]){{"train/loss", -0.1}}, 1);
}

static void test_another_reader_reads_them_back(void **state)
{
    (void)state;
    struct mode_str out = {0};
    size_t n;
    write_three(&out);
    struct read_event *e = reader_parse(&n, out.data, out.len);
    assert_int_equal(n, 4);
    assert_string_equal(e[0].version, "brain.Event:2");
    assert_true(e[1].start && e[1].step == 1);
    assert_true(e[2].wall_s == 1e9 + 2 && e[2].step == 1 && e[2].n == 2);
    assert_true(*reader_value_of(&e[2], "train/loss") == 3.25f && isinf(*reader_value_of(&e[2], "train/scale")));
    assert_true(e[3].step == UINT64_C(1) << 40 && e[3].value[0] == -0.1f);
    free(e);
    mode_str_clear(&out);
}

static void test_every_cut_and_every_changed_byte_is_noticed(void **state)
{
    (void)state;
    struct mode_str out = {0};
    struct mode_tfevent e;
    size_t end[5] = {0}, at = 0;
    write_three(&out);
    for (int i = 1; i <= 4; i++) {
        assert_true(mode_tfevents_next(&e, out.data, out.len, &at));
        end[i] = at;
    }
    assert_int_equal(at, out.len);
    assert_false(mode_tfevents_next(&e, out.data, out.len, &at));
    for (size_t cut = 0; cut < out.len; cut++) {
        size_t whole = 0;
        at = 0;
        while (mode_tfevents_next(&e, out.data, cut, &at)) whole++;
        assert_true(whole <= 4 && end[whole] <= cut && at == end[whole]);
        assert_true(whole == 4 || end[whole + 1] > cut);
    }
    for (size_t i = 0; i < out.len; i++) {
        size_t whole = 0;
        out.data[i] ^= 0x10;
        for (at = 0; mode_tfevents_next(&e, out.data, out.len, &at);) whole++;
        assert_true(end[whole] <= i && i < end[whole + 1]); /* those before it are intact */
        out.data[i] ^= 0x10;
    }
    mode_str_clear(&out);
}

static void test_what_an_event_says(void **state)
{
    (void)state;
    const struct mode_scalar both[] = {{"train/loss", 3.25}, {"train/lr", 1e-3}}, other[] = {{"train/loss", 3.5}};
    struct mode_str out = {0};
    struct mode_tfevent e;
    size_t at = 0;
    mode_tfevents_scalars(&out, 1, 9, both, 2);
    assert_true(mode_tfevents_next(&e, out.data, out.len, &at));
    assert_int_equal(e.step, 9);
    assert_int_equal(e.size, out.len);
    assert_true(mode_tfevents_says(&e, both, 2));
    assert_true(mode_tfevents_says(&e, both, 1));
    assert_false(mode_tfevents_says(&e, both + 1, 1));
    assert_false(mode_tfevents_says(&e, other, 1));
    mode_str_reset(&out);
    mode_tfevents_version(&out, 1);
    at = 0;
    assert_true(mode_tfevents_next(&e, out.data, out.len, &at));
    assert_null(e.summary);
    assert_false(mode_tfevents_says(&e, both, 1));
    mode_str_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_sums_are_crc32c), cmocka_unit_test(test_the_bytes_are_tensorflow_s),
        cmocka_unit_test(test_another_reader_reads_them_back),
        cmocka_unit_test(test_every_cut_and_every_changed_byte_is_noticed), cmocka_unit_test(test_what_an_event_says)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
