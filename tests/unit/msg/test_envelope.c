/* Messages: what is packed is unpacked unchanged; hostile input costs little and breaks nothing. */
#include "base/rng.h"
#include "base/str.h"
#include "msg/envelope.h"

#include "proto/assign.pb-c.h"
#include "proto/captions.pb-c.h"
#include "proto/cluster.pb-c.h"
#include "proto/common.pb-c.h"
#include "proto/embed.pb-c.h"
#include "proto/ensemble.pb-c.h"
#include "proto/evaluate.pb-c.h"
#include "proto/train.pb-c.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

static char key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static char session[] = "00112233445566778899aabbccddeeff";

struct sample { /* a HELLO with every field set */
    Mode__Envelope e;
    Mode__Hello hello;
    Mode__Label label, *labels[1];
    Mode__Lease lease, *leases[1];
};

static void sample_init(struct sample *s)
{
    uint64_t counter = 6;
    mode_envelope_init(&s->e, &counter, MODE__ENVELOPE__BODY_HELLO);
    mode__hello__init(&s->hello);
    mode__label__init(&s->label);
    mode__lease__init(&s->lease);
    s->label.name = "device";
    s->label.value = "cpu";
    s->labels[0] = &s->label;
    s->lease.key = key;
    s->lease.fence = UINT64_C(3) << 32 | 9;
    s->leases[0] = &s->lease;
    s->hello = (Mode__Hello){.base = s->hello.base,
                             .session = session,
                             .service = "embed",
                             .code_version = "0.1.0",
                             .build = "0.1.0",
                             .name = "embed@node/1",
                             .node = "node",
                             .slots = 1,
                             .store_id = session,
                             .n_labels = 1,
                             .labels = s->labels,
                             .n_held = 1,
                             .held = s->leases};
    s->e.hello = &s->hello;
}

static enum mode_status trip(struct sample *s, struct mode_envelope **out, struct mode_error *err)
{
    uint8_t *data;
    size_t size;
    enum mode_status st = mode_envelope_pack(&data, &size, &s->e, MODE_WIRE_ADMIN, err);
    if (!st) st = mode_envelope_unpack(out, data, size, MODE_WIRE_ADMIN, err);
    free(data);
    return st;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    sample_init(&s);
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    assert_int_equal(in->msg->id, 7);
    assert_int_equal(in->msg->body_case, MODE__ENVELOPE__BODY_HELLO);
    assert_string_equal(in->msg->hello->name, "embed@node/1");
    assert_int_equal(in->msg->hello->held[0]->fence, UINT64_C(3) << 32 | 9);
    assert_string_equal(mode_envelope_name(in->msg), "hello");
    mode_envelope_free(&in);
    assert_null(in);
    mode_envelope_free(&in);
}

static void test_wrong_values_are_refused_with_a_reason(void **state)
{
    (void)state;
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    char *text = mode_xcalloc(1, MODE_WIRE_MAX_STRING + 2);
#define REFUSED(change, word)                                                                                          \
    do {                                                                                                               \
        sample_init(&s);                                                                                               \
        change;                                                                                                        \
        assert_int_equal(trip(&s, &in, &err), MODE_E_FORMAT);                                                          \
        assert_null(in);                                                                                               \
        assert_non_null(strstr(err.text, word));                                                                       \
    } while (0)
    REFUSED(s.e.magic++, "magic");
    REFUSED(s.hello.slots = 0, "slots");
    REFUSED(s.hello.slots = 65, "slots");
    REFUSED(s.lease.key = "../../etc/passwd", "hex");
    REFUSED(s.lease.key = "", "hex");
    REFUSED(s.hello.session = "", "session");
    REFUSED(s.hello.session = "xyz", "hex");
    REFUSED(s.hello.node = "\xff\xfe", "UTF-8");
    memset(text, 'a', MODE_WIRE_MAX_STRING + 1);
    REFUSED(s.hello.node = text, "4096");
    text[MODE_WIRE_MAX_STRING] = '\0';
    sample_init(&s);
    s.hello.node = text; /* exactly the limit */
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    mode_envelope_free(&in);
    free(text);
    Mode__Label *many[65];
    for (int i = 0; i < 65; i++) many[i] = &s.label;
    REFUSED((s.hello.labels = many, s.hello.n_labels = 65), "labels");
    sample_init(&s);
    s.hello.labels = many;
    s.hello.n_labels = 64;
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    mode_envelope_free(&in);
    Mode__TaskProgress t = MODE__TASK_PROGRESS__INIT, *ts[] = {&t};
    Mode__Progress p = MODE__PROGRESS__INIT;
    Mode__Fail f = MODE__FAIL__INIT;
    f.key = key;
    f.class_ = MODE__FAIL_CLASS__FAIL_INTEGRITY;
    f.digest = (char *)"../../blob";
    REFUSED((s.e.body_case = MODE__ENVELOPE__BODY_FAIL, s.e.fail = &f), "Fail.digest");
    p.tasks = ts;
    p.n_tasks = 1;
    t.key = key;
    t.has_rate = 1;
    t.rate = NAN;
    REFUSED((s.e.body_case = MODE__ENVELOPE__BODY_PROGRESS, s.e.progress = &p), "finite");
}

static void team_refused(Mode__Envelope *e, const char *word)
{
    uint8_t *data;
    size_t size;
    struct mode_error err;
    struct mode_envelope *in;
    assert_int_equal(mode_envelope_pack(&data, &size, e, MODE_WIRE_WORKER, &err), MODE_OK);
    enum mode_status st = mode_envelope_unpack(&in, data, size, MODE_WIRE_WORKER, &err);
    assert_int_equal(st, word ? MODE_E_FORMAT : MODE_OK);
    if (word && !strstr(err.text, word)) fail_msg("\"%s\" does not say \"%s\"", err.text, word);
    mode_envelope_free(&in);
    free(data);
}

static void test_messages_of_a_team_have_limits(void **state)
{
    uint64_t counter = 0;
    uint8_t secret[40] = {0};
    Mode__Envelope e;
    Mode__BeginRanks b = MODE__BEGIN_RANKS__INIT;
    Mode__RankEnded r = MODE__RANK_ENDED__INIT;
    Mode__Join j = MODE__JOIN__INIT;
    (void)state;
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_BEGIN_RANKS);
    e.begin_ranks = &b;
    b.key = key;
    b.backend = b.inputs = "";
    b.size = 4;
    b.first = b.n = 2;
    b.port = 5611;
    b.secret = (ProtobufCBinaryData){32, secret};
    team_refused(&e, NULL);
    const Mode__BeginRanks good = b;
#define REFUSED_BEGIN(change, word) (b = good, change, team_refused(&e, word))
    REFUSED_BEGIN(b.n = 3, "3 processes from 2 on, of 4");
    REFUSED_BEGIN(b.n = 0, "0 processes");
    REFUSED_BEGIN(b.n = UINT32_MAX, "processes");
    REFUSED_BEGIN(b.first = 0, "from 0 on");
    REFUSED_BEGIN(b.first = UINT32_MAX, "processes");
    REFUSED_BEGIN((b.size = 5000, b.n = 65), "65 processes");
    REFUSED_BEGIN(b.port = 70000, "port 70000");
    REFUSED_BEGIN(b.secret.len = 31, "31 bytes");
    REFUSED_BEGIN(b.key = "x", "hex");
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_RANK_ENDED);
    e.rank_ended = &r;
    team_refused(&e, NULL);
    r.has_exit_code = 1;
    r.exit_code = 256;
    team_refused(&e, "code 256");
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_JOIN);
    e.join = &j;
    j.session = "0123456789abcdef0123456789abcdef";
    j.service = j.code_version = j.build = j.name = j.store_id = j.workspace = "";
    j.gpus = 64;
    team_refused(&e, NULL);
    j.gpus = 65;
    team_refused(&e, "65 GPUs");
    j.gpus = 1;
    j.session = "";
    team_refused(&e, "session");
}

static void test_unknown_enum_values_and_bodies_are_tolerated(void **state)
{
    (void)state;
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    Mode__Reject r = MODE__REJECT__INIT;
    sample_init(&s);
    s.e.body_case = MODE__ENVELOPE__BODY_REJECT;
    s.e.reject = &r;
    r.text = "of the future";
    r.code = (Mode__RejectCode)999;
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    assert_int_equal(in->msg->reject->code, MODE__REJECT_CODE__REJECT_UNSPECIFIED);
    mode_envelope_free(&in);
    sample_init(&s);
    s.e.body_case = MODE__ENVELOPE__BODY__NOT_SET;
    uint8_t *data, more[64];
    size_t size;
    assert_int_equal(mode_envelope_pack(&data, &size, &s.e, MODE_WIRE_WORKER, &err), MODE_OK);
    memcpy(more, data, size);
    memcpy(more + size, "\xc2\x3e\x02\x08\x01", 5); /* field 1000, a message we do not know */
    assert_int_equal(mode_envelope_unpack(&in, more, size + 5, MODE_WIRE_WORKER, &err), MODE_OK);
    assert_int_equal(in->msg->body_case, MODE__ENVELOPE__BODY__NOT_SET);
    assert_string_equal(mode_envelope_name(in->msg), "?");
    mode_envelope_free(&in);
    free(data);
}

static void test_size_caps_hold_at_the_byte(void **state)
{
    (void)state;
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    Mode__Fail f = MODE__FAIL__INIT;
    uint8_t *data, *log = mode_xcalloc(1, MODE_WIRE_WORKER_MAX);
    size_t size, at_limit = 0;
    sample_init(&s);
    s.e.body_case = MODE__ENVELOPE__BODY_FAIL;
    s.e.fail = &f;
    f.key = key;
    f.class_ = MODE__FAIL_CLASS__FAIL_CRASH;
    f.has_log_tail = 1;
    f.log_tail.data = log;
    for (f.log_tail.len = 65000;; f.log_tail.len++) {
        if (mode_envelope_pack(&data, &size, &s.e, MODE_WIRE_WORKER, &err)) break;
        at_limit = size;
        free(data);
    }
    assert_int_equal(at_limit, MODE_WIRE_WORKER_MAX);
    assert_int_equal(mode_envelope_pack(&data, &size, &s.e, MODE_WIRE_ADMIN, &err), MODE_OK);
    assert_int_equal(size, MODE_WIRE_WORKER_MAX + 1);
    assert_int_equal(mode_envelope_unpack(&in, data, size, MODE_WIRE_WORKER, &err), MODE_E_FORMAT);
    free(data);
    f.log_tail.len = MODE_WIRE_MAX_LOG_TAIL + 1;
    assert_int_equal(trip(&s, &in, &err), MODE_E_FORMAT);
    f.log_tail.len = MODE_WIRE_MAX_LOG_TAIL;
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    mode_envelope_free(&in);
    free(log);
}

/* A valid message of exactly the size limit is accepted, one byte more is refused. */
static void test_a_message_may_be_as_long_as_the_limit(void **state)
{
    (void)state;
    enum { N = 16, EACH = MODE_WIRE_WORKER_MAX / N - 40 };
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    Mode__Label label[N], *labels[N];
    uint8_t *data;
    size_t size = 0;
    char *text[N];
    sample_init(&s);
    for (int i = 0; i < N; i++) {
        mode__label__init(&label[i]);
        text[i] = mode_xcalloc(1, MODE_WIRE_MAX_STRING + 1);
        memset(text[i], 'a', EACH);
        label[i].name = (char *)"x";
        label[i].value = text[i];
        labels[i] = &label[i];
    }
    s.hello.labels = labels;
    s.hello.n_labels = N;
    for (int i = 0; size < MODE_WIRE_WORKER_MAX + 1; i++) {
        assert_true(i < 1000);
        text[i % N][EACH + i / N] = 'a';
        assert_int_equal(mode_envelope_pack(&data, &size, &s.e, MODE_WIRE_ADMIN, &err), MODE_OK);
        enum mode_status st = mode_envelope_unpack(&in, data, size, MODE_WIRE_WORKER, &err);
        assert_int_equal(st, size <= MODE_WIRE_WORKER_MAX ? MODE_OK : MODE_E_FORMAT);
        if (st) assert_non_null(strstr(err.text, "a message of 65537 bytes, at most 65536"));
        mode_envelope_free(&in);
        free(data);
    }
    for (int i = 0; i < N; i++) free(text[i]);
}

static void test_another_protocol_is_said(void **state)
{
    (void)state;
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    sample_init(&s);
    s.e.major = MODE_WIRE_MAJOR + 1;
    assert_int_equal(trip(&s, &in, &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "protocol version 2.0, this build speaks 1.0"));
    sample_init(&s);
    s.e.major = MODE_WIRE_MAJOR - 1;
    assert_int_equal(trip(&s, &in, &err), MODE_E_CONFIG);
    sample_init(&s);
    s.e.minor = MODE_WIRE_MINOR + 7;
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    mode_envelope_free(&in);
}

/* Unknown fields of a newer sender are ignored in messages, and detected where they must not be ignored. */
static void test_unknown_fields_are_passed_over_and_can_be_found(void **state)
{
    (void)state;
    static const uint8_t task[] = {10, 1, 't', 18,   1, 'd',
                                   26, 1, 'k', 0xa0, 6, 5}; /* field 100 of an EnsembleTask: 5 */
    static const uint8_t head[] = {10, 1, 'r', 18, 1, 'p', 24, 1}, tail[] = {50, 0, 56, 0, 74, 0, 80, 0};
    struct mode_error err;
    struct mode_unpacked u;
    uint8_t data[64];
    const char *of;
    size_t n = 0;
    memcpy(data, head, sizeof head);
    n += sizeof head;
    data[n++] = 34;
    data[n++] = sizeof task;
    memcpy(data + n, task, sizeof task);
    n += sizeof task;
    memcpy(data + n, tail, sizeof tail);
    n += sizeof tail;
    assert_int_equal(mode_unpack(&u, &mode__ensemble_request__descriptor, data, n, 100000, 0, &err), MODE_OK);
    assert_int_equal(mode_unknown_field(u.msg, &of), 100);
    assert_string_equal(of, "mode.EnsembleTask");
    mode_unpacked_free(&u);
    data[sizeof head + 1] = sizeof task - 3;
    memcpy(data + sizeof head + 2 + sizeof task - 3, tail, sizeof tail);
    assert_int_equal(mode_unpack(&u, &mode__ensemble_request__descriptor, data, n - 3, 100000, 0, &err), MODE_OK);
    assert_int_equal(mode_unknown_field(u.msg, &of), 0);
    mode_unpacked_free(&u);
}

/* A length-delimited field of `wrap` around the last n bytes of buf, growing to the front. */
static size_t wrap_in_front(uint8_t *buf, size_t at, size_t end, unsigned field)
{
    uint64_t n = end - at;
    uint8_t head[16];
    size_t k = 0;
    unsigned tag = field << 3 | 2;
    while (tag >= 128) head[k++] = (uint8_t)(tag | 128), tag >>= 7;
    head[k++] = (uint8_t)tag;
    while (n >= 128) head[k++] = (uint8_t)(n | 128), n >>= 7;
    head[k++] = (uint8_t)n;
    memcpy(buf + at - k, head, k);
    return at - k;
}

static void test_deep_nesting_is_harmless(void **state)
{
    (void)state; /* 74 KB of nested messages crash the unpacker on a recursive type; ours are not
                    recursive */
    struct mode_envelope *in;
    struct mode_error err;
    size_t cap = MODE_WIRE_ADMIN_MAX;
    uint8_t *buf = mode_xcalloc(1, cap);
    const unsigned fields[] = {16, 97, 5, 1000};
    for (size_t k = 0; k < 4; k++) {
        size_t at = cap;
        while (at > 16 && cap - at < 900000) at = wrap_in_front(buf, at, cap, fields[k]);
        assert_int_not_equal(mode_envelope_unpack(&in, buf + at, cap - at, MODE_WIRE_ADMIN, &err), MODE_OK);
        at = cap;
        while (cap - at < 60000) at = wrap_in_front(buf, at, cap, fields[k]);
        assert_int_not_equal(mode_envelope_unpack(&in, buf + at, cap - at, MODE_WIRE_WORKER, &err), MODE_OK);
    }
    free(buf);
}

static void test_wide_messages_meet_the_budget(void **state)
{
    (void)state; /* a Progress of empty sub-messages, two bytes each */
    struct sample s;
    struct mode_unpacked u;
    struct mode_error err;
    size_t n = MODE_WIRE_WORKER_MAX;
    uint8_t *data = mode_xmalloc(n);
    for (size_t i = 0; i < n; i += 2)
        memcpy(data + i, "\x2a\x00", 2); /* StatusReply.runs = {} : lacks required fields */
    assert_int_not_equal(mode_unpack(&u, &mode__status_reply__descriptor, data, n, MODE_WIRE_WORKER_BUDGET, 0, &err),
                         MODE_OK);
    for (size_t i = 0; i < n; i += 2) memcpy(data + i, "\x22\x00", 2); /* SubmitReply.warnings = "" */
    assert_int_not_equal(mode_unpack(&u, &mode__submit_reply__descriptor, data, n, 100000, 0, &err), MODE_OK);
    assert_int_equal(err.status, MODE_E_MEMORY);
    assert_non_null(strstr(err.text, "unpack to more"));
    /* within the memory budget but over the count */
    sample_init(&s);
    Mode__SubmitReply r = MODE__SUBMIT_REPLY__INIT;
    char **w = mode_xcalloc(MODE_WIRE_MAX_REPEATED + 1, sizeof *w);
    for (size_t i = 0; i <= MODE_WIRE_MAX_REPEATED; i++) w[i] = "";
    r.run = "r";
    r.warnings = w;
    r.n_warnings = MODE_WIRE_MAX_REPEATED + 1;
    s.e.body_case = MODE__ENVELOPE__BODY_SUBMIT_REPLY;
    s.e.submit_reply = &r;
    struct mode_envelope *in;
    assert_int_equal(trip(&s, &in, &err), MODE_E_FORMAT);
    r.n_warnings = MODE_WIRE_MAX_REPEATED;
    assert_int_equal(trip(&s, &in, &err), MODE_OK);
    mode_envelope_free(&in);
    free(w);
    free(data);
}

/* Every truncation, then thousands of seeded mutations, of a message with every kind of field: no crash, no leak
 * (sanitizers), and whatever is accepted can be packed again. */
static void test_mutations_never_crash(void **state)
{
    (void)state;
    struct sample s;
    struct mode_envelope *in;
    struct mode_error err;
    uint8_t *data, *bad;
    size_t size;
    int accepted = 0, refused = 0;
    sample_init(&s);
    assert_int_equal(mode_envelope_pack(&data, &size, &s.e, MODE_WIRE_WORKER, &err), MODE_OK);
    for (size_t cut = 0; cut < size; cut++)
        if (mode_envelope_unpack(&in, data, cut, MODE_WIRE_WORKER, &err) == MODE_OK) {
            assert_int_equal(in->msg->body_case, MODE__ENVELOPE__BODY__NOT_SET); /* cut just before the body */
            mode_envelope_free(&in);
        }
    bad = mode_xmalloc(size + 64);
    for (uint64_t i = 0; i < 20000; i++) {
        struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 1, i);
        memcpy(bad, data, size);
        size_t n = size;
        for (uint64_t k = 1 + mode_rng_below(&r, 4); k > 0; k--) switch (mode_rng_below(&r, 4)) {
            case 0: bad[mode_rng_below(&r, n)] ^= (uint8_t)(1u << mode_rng_below(&r, 8)); break;
            case 1: bad[mode_rng_below(&r, n)] = (uint8_t)mode_rng_u32(&r); break;
            case 2: n = 1 + mode_rng_below(&r, n); break;
            default: {
                size_t from = mode_rng_below(&r, n), len = mode_rng_below(&r, n - from) % 32,
                       to = mode_rng_below(&r, n);
                if (n + len > size + 64) break;
                memmove(bad + to + len, bad + to, n - to);
                n += len;
                memmove(bad + to, bad + from, len);
            }
            }
        if (mode_envelope_unpack(&in, bad, n, MODE_WIRE_WORKER, &err) == MODE_OK) {
            uint8_t *again;
            size_t m;
            if (mode_envelope_pack(&again, &m, in->msg, MODE_WIRE_ADMIN, &err) == MODE_OK) free(again);
            mode_envelope_free(&in);
            accepted++;
        } else
            refused++;
    }
    assert_true(accepted > 100 && refused > 100); /* the mutations cover both */
    free(bad);
    free(data);
}

/* No message of ours may contain itself, and every enum has a 0. */
static void lint(const ProtobufCMessageDescriptor *d, const ProtobufCMessageDescriptor **path, int depth)
{
    for (int i = 0; i < depth; i++)
        if (path[i] == d) fail_msg("%s contains itself", d->name);
    assert_true(depth < 15);
    path[depth] = d;
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) lint(d->fields[i].descriptor, path, depth + 1);
        if (d->fields[i].type == PROTOBUF_C_TYPE_ENUM)
            assert_non_null(protobuf_c_enum_descriptor_get_value(d->fields[i].descriptor, 0));
    }
}

static void test_no_message_contains_itself(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *roots[] = {
        &mode__envelope__descriptor,         &mode__task_spec__descriptor,     &mode__commit__descriptor,
        &mode__captions_request__descriptor, &mode__embed_request__descriptor, &mode__cluster_request__descriptor,
        &mode__assign_request__descriptor,   &mode__train_request__descriptor, &mode__evaluate_request__descriptor,
        &mode__ensemble_request__descriptor,
    };
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        const ProtobufCMessageDescriptor *path[16];
        lint(roots[i], path, 0);
    }
}

static void test_texts_are_made_fit_for_the_wire(void **state)
{
    (void)state;
    char cut[] = "/data/k\xc3\xa4se/\xe6\x97", odd[] = "\xff\xc3(\xed\xa0\x80.tar", good[] = "k\xc3\xa4se";
    mode_wire_text(cut);
    assert_string_equal(cut, "/data/k\xc3\xa4se/??");
    mode_wire_text(odd);
    assert_string_equal(odd, "\?\?(\?\?\?.tar");
    mode_wire_text(good);
    assert_string_equal(good, "k\xc3\xa4se");
    mode_wire_text(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_wrong_values_are_refused_with_a_reason),
        cmocka_unit_test(test_messages_of_a_team_have_limits),
        cmocka_unit_test(test_unknown_enum_values_and_bodies_are_tolerated),
        cmocka_unit_test(test_size_caps_hold_at_the_byte),
        cmocka_unit_test(test_a_message_may_be_as_long_as_the_limit),
        cmocka_unit_test(test_another_protocol_is_said),
        cmocka_unit_test(test_unknown_fields_are_passed_over_and_can_be_found),
        cmocka_unit_test(test_deep_nesting_is_harmless),
        cmocka_unit_test(test_wide_messages_meet_the_budget),
        cmocka_unit_test(test_mutations_never_crash),
        cmocka_unit_test(test_texts_are_made_fit_for_the_wire),
        cmocka_unit_test(test_no_message_contains_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
