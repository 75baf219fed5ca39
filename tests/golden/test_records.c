/* Backward compatibility: every release reads the files and messages of all earlier ones.
 * tests/golden/records/<version>/ holds samples of all of them as that release wrote them. MODE_WRITE_RECORDS=1 writes
 * the folder of this version, once, when it is released; it is never changed afterwards. */
#include "clip_world.h"

#include "base/version.h"
#include "data/captions.h"
#include "models/clip_folder.h"
#include "models/clip_train.h"
#include "msg/envelope.h"
#include "nn/backend.h"
#include "pipeline/checkpoint.h"
#include "plan.h"
#include "plan_world.h"
#include "proto/assign.pb-c.h"
#include "proto/captions.pb-c.h"
#include "proto/cluster.pb-c.h"
#include "proto/embed.pb-c.h"
#include "proto/ensemble.pb-c.h"
#include "proto/evaluate.pb-c.h"
#include "proto/train.pb-c.h"
#include "run_record.h"
#include "store/artifacts.h"
#include "store/gc.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RECORDS MODE_SOURCE_DIR "/tests/golden/records"

enum { MAX_VERSIONS = 100, MAX_TYPES = 100 };
static char dir[] = "/tmp/mode-records-XXXXXX"; /* copies, one folder for each version */
static char *version[MAX_VERSIONS];
static int n_versions;

static const ProtobufCMessageDescriptor *const roots[] = {
    &mode__envelope__descriptor,         &mode__task_spec__descriptor,     &mode__commit__descriptor,
    &mode__captions_request__descriptor, &mode__embed_request__descriptor, &mode__cluster_request__descriptor,
    &mode__assign_request__descriptor,   &mode__train_request__descriptor, &mode__evaluate_request__descriptor,
    &mode__ensemble_request__descriptor,
};
enum { N_ROOTS = sizeof roots / sizeof *roots };

static char *text_of(const char *folder, const char *name, size_t *size)
{
    struct mode_error err = {0};
    char *path = mode_path_join(folder, name), *text;
    world_ok(mode_file_read(path, 0, &text, size, &err), &err);
    free(path);
    return text;
}

static void write_text(const char *folder, const char *name, const char *text)
{
    struct mode_error err = {0};
    char *path = mode_path_join(folder, name);
    world_ok(mode_file_write_atomic(path, text, strlen(text), &err), &err);
    free(path);
}

/* ---------------------------------------------------------------------------------------------- messages */

/* Sets every field of a message, to different values, so that no field can be read as another one. */
static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *d, unsigned body);

static void fill(const ProtobufCFieldDescriptor *f, void *at, unsigned number)
{
    const ProtobufCEnumDescriptor *e = f->descriptor;
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const bool hex = strcmp(f->name, "key") == 0 || strcmp(f->name, "digest") == 0;
        *(char **)at = hex                               ? mode_xasprintf("%064x", number)
                       : strcmp(f->name, "session") == 0 ? mode_xasprintf("%032x", number)
                                                         : mode_xasprintf("%s %u", f->name, number);
        break;
    }
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){strlen(f->name), (uint8_t *)mode_xstrdup(f->name)};
        break;
    case PROTOBUF_C_TYPE_MESSAGE: *(ProtobufCMessage **)at = filled(f->descriptor, 0); break;
    case PROTOBUF_C_TYPE_ENUM: *(int *)at = e->values[e->n_values - 1].value; break;
    case PROTOBUF_C_TYPE_DOUBLE: *(double *)at = number + 0.5; break;
    case PROTOBUF_C_TYPE_BOOL: *(protobuf_c_boolean *)at = 1; break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64: *(uint64_t *)at = number; break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_FIXED32: *(uint32_t *)at = number; break;
    default: fail_msg("field %s is of a type that nothing here is", f->name);
    }
}

/* body: the member of an Envelope's oneof that is set. */
static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *d, unsigned body)
{
    ProtobufCMessage *m = mode_xcalloc(1, d->sizeof_message);
    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        char *at = (char *)m + f->offset, *count = (char *)m + f->quantifier_offset;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            if (f->id != body) continue;
            *(uint32_t *)(void *)count = f->id;
        } else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            *(size_t *)(void *)count = 1;
            *(void **)(void *)at = mode_xcalloc(1, sizeof(ProtobufCBinaryData));
            at = *(char **)(void *)at;
        } else if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->quantifier_offset) {
            *(protobuf_c_boolean *)(void *)count = 1;
        }
        fill(f, at, f->id);
    }
    if (d == &mode__envelope__descriptor) {
        ((Mode__Envelope *)m)->magic = MODE_WIRE_MAGIC;
        ((Mode__Envelope *)m)->major = MODE_WIRE_MAJOR;
        ((Mode__Envelope *)m)->minor = MODE_WIRE_MINOR;
    }
    return m;
}

static void add_message(struct mode_str *out, const ProtobufCMessageDescriptor *d, unsigned body, const char *name)
{
    ProtobufCMessage *m = filled(d, body);
    const size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *packed = mode_xmalloc(n);
    protobuf_c_message_pack(m, packed);
    mode_str_printf(out, "%s ", name);
    for (size_t i = 0; i < n; i++) mode_str_printf(out, "%02x", packed[i]);
    mode_str_add_cstr(out, "\n");
    free(packed);
    protobuf_c_message_free_unpacked(m, NULL);
}

/* "envelope/hello 1d4d6f...", "mode.TrainRequest 0a..." */
static void write_messages(const char *folder)
{
    struct mode_str out = {0};
    const ProtobufCMessageDescriptor *d = &mode__envelope__descriptor;
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (!(d->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF)) continue;
        char *name = mode_xasprintf("envelope/%s", d->fields[i].name);
        add_message(&out, d, d->fields[i].id, name);
        free(name);
    }
    for (int r = 1; r < N_ROOTS; r++) add_message(&out, roots[r], 0, roots[r]->name);
    write_text(folder, "messages.txt", out.data);
    mode_str_clear(&out);
}

static const ProtobufCMessageDescriptor *root_of(const char *name)
{
    for (int r = 0; r < N_ROOTS; r++)
        if (strcmp(roots[r]->name, name) == 0) return roots[r];
    return NULL;
}

static void read_message(const char *of, const char *name, const uint8_t *packed, size_t n)
{
    struct mode_error err;
    struct mode_unpacked u;
    if (strncmp(name, "envelope/", 9) == 0) {
        struct mode_envelope *in;
        if (mode_envelope_unpack(&in, packed, n, MODE_WIRE_ADMIN, &err)) fail_msg("%s of %s: %s", name, of, err.text);
        if (strcmp(mode_envelope_name(in->msg), name + 9) != 0)
            fail_msg("%s of %s is read as \"%s\"", name, of, mode_envelope_name(in->msg));
        mode_envelope_free(&in);
        return;
    }
    const ProtobufCMessageDescriptor *type = root_of(name);
    if (!type) fail_msg("%s, which %s has, is no message any more", name, of);
    if (mode_unpack(&u, type, packed, n, 1 << 20, 0, &err)) fail_msg("%s of %s: %s", name, of, err.text);
    mode_unpacked_free(&u);
}

static void test_messages_of_every_release_are_read(void **state)
{
    (void)state;
    for (int v = 0; v < n_versions; v++) {
        char *folder = mode_path_join(dir, version[v]), *text = text_of(folder, "messages.txt", NULL), *save = NULL;
        int n_read = 0;
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), n_read++) {
            char *hex = strchr(line, ' ');
            assert_non_null(hex);
            *hex++ = '\0';
            const size_t n = strlen(hex) / 2;
            uint8_t *packed = mode_xmalloc(n + 1);
            unsigned byte;
            for (size_t i = 0; i < n && sscanf(hex + 2 * i, "%2x", &byte) == 1; i++) packed[i] = (uint8_t)byte;
            read_message(version[v], line, packed, n);
            free(packed);
        }
        assert_true(n_read > 20);
        free(text);
        free(folder);
    }
}

/* ---------------------------------------------------------------------------------------------- message schemas */

static void add_schema(struct mode_str *out, const ProtobufCMessageDescriptor *d,
                       const ProtobufCMessageDescriptor **seen, int *n_seen)
{
    static const char *const labels[] = {"required", "optional", "repeated", "plain"};
    for (int i = 0; i < *n_seen; i++)
        if (seen[i] == d) return;
    assert_true(*n_seen < MAX_TYPES);
    seen[(*n_seen)++] = d;
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        mode_str_printf(out, "%s %u %s %d%s%s %s\n", d->name, f->id, labels[f->label], (int)f->type,
                        f->type == PROTOBUF_C_TYPE_MESSAGE ? " " : "",
                        f->type == PROTOBUF_C_TYPE_MESSAGE ? ((const ProtobufCMessageDescriptor *)f->descriptor)->name
                                                           : "",
                        f->name);
    }
    for (unsigned i = 0; i < d->n_fields; i++)
        if (d->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) add_schema(out, d->fields[i].descriptor, seen, n_seen);
}

/* A line for each field: message, number, label, type as protobuf-c counts them, name. */
static char *schema(void)
{
    const ProtobufCMessageDescriptor *seen[MAX_TYPES];
    struct mode_str out = {0};
    int n_seen = 0;
    for (int r = 0; r < N_ROOTS; r++) add_schema(&out, roots[r], seen, &n_seen);
    return out.data;
}

/* The line of lines that starts with the first n bytes of line, or NULL. */
static const char *line_like(const char *lines, const char *line, size_t n)
{
    for (const char *at = lines; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (strncmp(at, line, n) == 0) return at;
    return NULL;
}

/* The two ends of a connection are never updated at once: fields may be added, none may change, none that a release did
 * not have may be required, and a required one stays. */
static void test_messages_only_gain_optional_fields(void **state)
{
    (void)state;
    char *now = schema();
    for (int v = 0; v < n_versions; v++) {
        char *folder = mode_path_join(dir, version[v]), *then = text_of(folder, "schema.txt", NULL);
        for (const char *line = then; *line; line = strchr(line, '\n') + 1) {
            const size_t n = strcspn(line, "\n") + 1, type = strcspn(line, " ") + 1;
            const size_t field = type + strcspn(line + type, " ") + 1;
            const bool needed = strncmp(line + field, "required", 8) == 0;
            if (line_like(now, line, n)) continue;
            if (line_like(now, line, field) || needed)
                fail_msg(
                    "version %s has the field \"%.*s\", which is gone or another one now. HINT: give what is new a "
                    "number that was never used; what is required stays",
                    version[v], (int)n - 1, line);
        }
        for (const char *line = now; *line; line = strchr(line, '\n') + 1) {
            const size_t n = strcspn(line, "\n"), type = strcspn(line, " ") + 1;
            const size_t field = type + strcspn(line + type, " ") + 1;
            if (strncmp(line + field, "required", 8) == 0 && line_like(then, line, type) &&
                !line_like(then, line, field))
                fail_msg("\"%.*s\" is required, and version %s does not know it. HINT: make it optional and check it "
                         "where it is read",
                         (int)n, line, version[v]);
        }
        free(then);
        free(folder);
    }
    free(now);
}

/* ---------------------------------------------------------------------------------------------- files */

static const char tiny_model[] =
    "{\"embed_dim\":6,\"vision_cfg\":{\"image_size\":8,\"layers\":1,\"width\":8,\"head_width\":4,\"patch_size\":4},"
    "\"text_cfg\":{\"context_length\":7,\"vocab_size\":20,\"width\":8,\"heads\":2,\"layers\":1}}";
static const char spec_text[] =
    "name: golden\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\ntokenizer: {merges: m.gz}\n"
    "cluster: {fine: 8, coarse: 2}\ntrain: {batch: 100, seed_steps: 10, total_steps: 12}\nevaluate: {tasks: tasks}\n";
static const char steps_text[] =
    "{\"step\": 1, \"loss\": 2.5, \"lr\": 0.001, \"logit_scale\": 14.3, \"seconds\": 0.5}\n";

/* Weights and AdamW moments as training leaves them after step 1. */
static void write_model(const char *folder, bool config)
{
    struct mode_error err = {0};
    struct mode_backend *be;
    struct mode_clip *clip;
    size_t n;
    char *path[3] = {mode_path_join(folder, MODE_FILE_CLIP_CONFIG), mode_path_join(folder, MODE_FILE_CLIP_WEIGHTS),
                     mode_path_join(folder, MODE_FILE_CLIP_OPTIMIZER)};
    world_ok(mode_dir_make(folder, &err), &err);
    world_ok(mode_backend_open(&be, "ref", &err), &err);
    world_ok(mode_clip_create(&clip, be, tiny_model, WORLD_PREPROCESS, 7, &err), &err);
    world_ok(mode_clip_save(clip, path[0], path[1], &err), &err);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        p[i].m = p[i].v = p[i].value;
        p[i].m.data = mode_xcalloc(1, mode_tensor_bytes(&p[i].value));
        p[i].v.data = mode_xcalloc(1, mode_tensor_bytes(&p[i].value));
        ((float *)p[i].m.data)[0] = 0.25f;
        ((float *)p[i].v.data)[0] = 0.5f;
    }
    world_ok(mode_checkpoint_save_moments(path[2], NULL, p, n, 1, &err), &err);
    for (size_t i = 0; i < n; i++) {
        free(p[i].m.data);
        free(p[i].v.data);
        p[i].m.data = p[i].v.data = NULL;
    }
    if (!config) unlink(path[0]);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    for (int i = 0; i < 3; i++) free(path[i]);
}

static void read_model(const char *config, const char *folder)
{
    struct mode_error err = {0};
    struct mode_backend *be;
    struct mode_clip *clip;
    size_t n;
    uint64_t step;
    char *path[3] = {mode_path_join(config, MODE_FILE_CLIP_CONFIG), mode_path_join(folder, MODE_FILE_CLIP_WEIGHTS),
                     mode_path_join(folder, MODE_FILE_CLIP_OPTIMIZER)};
    world_ok(mode_backend_open(&be, "ref", &err), &err);
    if (mode_clip_load_files(&clip, be, path[0], path[1], &err)) fail_msg("%s", err.text);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        p[i].m = p[i].v = p[i].value;
        p[i].m.data = mode_xcalloc(1, mode_tensor_bytes(&p[i].value));
        p[i].v.data = mode_xcalloc(1, mode_tensor_bytes(&p[i].value));
    }
    if (mode_checkpoint_load_moments(NULL, p, n, &step, path[2], &err)) fail_msg("%s", err.text);
    assert_int_equal(step, 1);
    assert_true(((float *)p[n - 1].m.data)[0] == 0.25f && ((float *)p[n - 1].v.data)[0] == 0.5f);
    for (size_t i = 0; i < n; i++) {
        free(p[i].m.data);
        free(p[i].v.data);
        p[i].m.data = p[i].v.data = NULL;
    }
    mode_clip_close(&clip);
    mode_backend_close(&be);
    for (int i = 0; i < 3; i++) free(path[i]);
}

static void write_feat(const char *path)
{
    struct mode_error err = {0};
    float x[] = {1, 0, 0, 1};
    struct mode_tensor t = mode_tensor_2d(x, MODE_DTYPE_F32, 2, 2);
    struct mode_meta meta[] = {{(char *)"encoder_id", (char *)"test"}, {(char *)"source", (char *)"captions"}};
    t.name = "feat";
    world_ok(mode_safetensors_write(path, &t, 1, meta, 2, &err), &err);
}

static void write_artifacts(const char *folder)
{
    struct mode_error err = {0};
    struct world w;
    char *expert = mode_path_join(folder, "expert-0"), *feat = mode_path_join(folder, "feat.safetensors");
    char *to[3] = {mode_path_join(folder, "captions.bin"), mode_path_join(folder, "centres.safetensors"),
                   mode_path_join(folder, "assign.safetensors")};
    world_open(&w);
    const char *from[3] = {w.captions[0], w.centres, w.assign[0]};
    for (int i = 0; i < 3; i++) {
        world_ok(mode_file_copy(from[i], to[i], false, &err), &err);
        free(to[i]);
    }
    write_feat(feat);
    write_model(expert, true);
    world_close(&w);
    free(expert);
    free(feat);
}

static void test_artifacts_of_every_release_are_read(void **state)
{
    (void)state;
    struct mode_error err = {0};
    for (int v = 0; v < n_versions; v++) {
        char *folder = mode_path_join(dir, version[v]), *expert = mode_path_join(folder, "expert-0");
        char *path[4] = {mode_path_join(folder, "captions.bin"), mode_path_join(folder, "centres.safetensors"),
                         mode_path_join(folder, "assign.safetensors"), mode_path_join(folder, "feat.safetensors")};
        struct mode_captions c;
        struct mode_centres centres;
        struct mode_safetensors f;
        const struct mode_tensor *t;
        if (mode_captions_load(&c, path[0], &err)) fail_msg("%s", err.text);
        assert_int_equal(c.n_rows, 31);
        assert_string_equal(mode_captions_row(&c, 0).caption, "a red square, number 0");
        assert_string_equal(mode_captions_row(&c, 0).key, "s0000");
        assert_int_equal(mode_captions_row(&c, 0).width, 18);
        assert_string_equal(c.shard_name, "0.tar");
        mode_captions_clear(&c);
        if (mode_centres_load(&centres, path[1], &err)) fail_msg("%s", err.text);
        assert_int_equal(centres.m, 4);
        assert_int_equal(centres.n, 2);
        assert_int_equal(centres.fine_to_coarse[3], 1);
        assert_true(centres.fine[1 * 2 + 1] == 1);
        mode_centres_clear(&centres);
        if (mode_safetensors_open(&f, path[2], &err)) fail_msg("%s", err.text);
        if (mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, (int64_t[]){31}, &t, &err))
            fail_msg("%s", err.text);
        assert_int_equal(((const int32_t *)t->data)[1], 3);
        if (mode_safetensors_need(&f, "distance", MODE_DTYPE_F32, 1, (int64_t[]){31}, &t, &err))
            fail_msg("%s", err.text);
        assert_non_null(mode_safetensors_meta(&f, "centres"));
        mode_safetensors_close(&f);
        if (mode_safetensors_open(&f, path[3], &err)) fail_msg("%s", err.text);
        if (mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, (int64_t[]){2, 2}, &t, &err)) fail_msg("%s", err.text);
        assert_string_equal(mode_safetensors_meta(&f, "encoder_id"), "test");
        mode_safetensors_close(&f);
        read_model(expert, expert);
        for (int i = 0; i < 4; i++) free(path[i]);
        free(folder);
        free(expert);
    }
}

/* ---------------------------------------------------------------------------------------------- a workspace */

/* The task of the store's records. */
static void golden_task(Mode__TaskSpec *spec, Mode__Input *in, Mode__Input **ins)
{
    static char digest[MODE_DIGEST_HEX];
    mode__task_spec__init(spec);
    mode__input__init(in);
    mode_digest_bytes("x", 1, digest);
    in->name = (char *)"captions/0000";
    in->digest = digest;
    in->size = 1;
    *ins = in;
    spec->service = (char *)"train";
    spec->code_version = (char *)"train-1";
    spec->request = (ProtobufCBinaryData){4, (uint8_t *)(uintptr_t) "\x0a\x02"
                                                                    "hi"};
    spec->inputs = ins;
    spec->n_inputs = 1;
}

static void commit_task(struct mode_store *store, const char *key, const char *name, const char *digest)
{
    struct mode_error err = {0};
    bool created;
    Mode__Commit c = MODE__COMMIT__INIT;
    Mode__Blob b = MODE__BLOB__INIT, *blobs[] = {&b};
    Mode__Count n = MODE__COUNT__INIT, *counts[] = {&n};
    n.reason = (char *)"bad_image";
    n.n = 3;
    b.name = (char *)(uintptr_t)name;
    b.digest = (char *)(uintptr_t)digest;
    b.size = 5;
    c.key = (char *)(uintptr_t)key;
    c.service = (char *)"train";
    c.outputs = blobs;
    c.n_outputs = 1;
    c.rows_in = 10;
    c.rows_out = 7;
    c.rejects = counts;
    c.n_rejects = 1;
    c.fence = UINT64_C(1) << 32 | 5;
    c.attempt = 1;
    c.worker = (char *)"w";
    c.seconds = 1.5;
    c.note = (char *)"{\"steps\": 1}";
    c.backend = (char *)"cpu-avx2";
    world_ok(mode_store_commit_create(store, &created, NULL, &c, &err), &err);
}

static void write_checkpoint(struct mode_store *store, const char *key)
{
    struct mode_error err = {0};
    char *ckpt, *step;
    world_ok(mode_store_checkpoint_dir(store, &ckpt, key, UINT64_C(1) << 32 | 6, &err), &err);
    step = mode_path_join(ckpt, "step-0000000001");
    write_model(step, true);
    write_text(step, MODE_FILE_STEPS, steps_text);
    write_text(step, "fingerprint", key);
    world_ok(mode_store_checkpoint_done(store, key, UINT64_C(1) << 32 | 6, "step-0000000001", &err), &err);
    free(step);
    free(ckpt);
}

/* The input paths exist on no machine: only what was recorded about them is read. */
static void write_run(const char *root, const char *key)
{
    struct mode_error err = {0};
    struct plan p = {.n_tasks = 1};
    struct mode_shard shard = {(char *)"/data/shards/0.tar", (char *)"0.tar", 2048, 1700000000000000000};
    struct plan_task task = {(char *)"t0", (char *)"/data/tasks/t0", "classification", {0}, {0}};
    uint32_t end = 1;
    char *run = mode_path_join(root, "runs/golden"), *inputs = mode_path_join(run, "inputs.json");
    char *plan = mode_xasprintf(
        "{\"experts\": 2, \"shards\": [\"/data/shards/0.tar\"], \"shard_end\": [1], \"settled\": "
        "true, \"nodes\": [\n{\"stage\": \"train-seed\", \"label\": \"train/seed\", \"key\": "
        "\"%s\", \"done\": true}]}\n",
        key);
    world_ok(mode_dir_make(run, &err), &err);
    world_ok(mode_spec_parse(&p.spec, spec_text, "/data", "spec.yaml", &err), &err);
    p.encoder_id = (char *)"bert:0123456789abcdef:mean:77";
    mode_digest_bytes("merges", 6, p.tokenizer_digest);
    mode_digest_bytes("t0", 2, task.digest);
    mode_digest_bytes("words", 5, task.words_digest);
    p.task = &task;
    p.shards.shard = &shard;
    p.shards.n = 1;
    p.shard_end = &end;
    world_ok(plan_inputs_save(&p, inputs, &err), &err);
    write_text(run, "spec.yaml", spec_text);
    write_text(run, "plan.json", plan);
    write_text(run, "run.json",
               "{\"name\": \"golden\", \"base_dir\": \"/data\", \"idempotency\": \"i\", \"state\": 3, "
               "\"created_unix_ms\": 1700000000000, \"finished_unix_ms\": 1700000001000, \"message\": \"\"}\n");
    mode_spec_clear(&p.spec);
    free(run);
    free(inputs);
    free(plan);
}

static void write_workspace(const char *folder)
{
    struct mode_error err = {0};
    struct mode_store *store;
    Mode__TaskSpec spec;
    Mode__Input in, *ins;
    char key[MODE_DIGEST_HEX], open_key[MODE_DIGEST_HEX], digest[MODE_DIGEST_HEX];
    char *root = mode_path_join(folder, "workspace"), *lock = mode_path_join(root, "lock");
    world_ok(mode_dir_make(root, &err), &err);
    world_ok(mode_store_open(&store, root, &err), &err);
    golden_task(&spec, &in, &ins);
    world_ok(mode_store_task_put(store, key, &spec, &err), &err);
    world_ok(mode_store_put_bytes(store, digest, "bytes", 5, &err), &err);
    commit_task(store, key, "train.json", digest);
    mode_digest_bytes("open", 4, open_key);
    write_checkpoint(store, open_key);
    write_run(root, key);
    mode_store_close(&store);
    unlink(lock);
    free(lock);
    free(root);
}

static void read_records(struct mode_store *store, const char *root)
{
    struct mode_error err = {0};
    Mode__TaskSpec *spec;
    Mode__Commit *c;
    struct run_record r;
    char *path, open_key[MODE_DIGEST_HEX];
    uint32_t damaged;
    if (run_record_open(&r, root, "golden", &err)) fail_msg("%s", err.text);
    assert_int_equal(r.n_experts, 2);
    assert_string_equal(run_record_shard(&r, 0), "/data/shards/0.tar");
    if (run_record_output(&r, &c, &path, "train/seed", "train.json", &err)) fail_msg("%s", err.text);
    assert_int_equal(c->rows_out, 7);
    assert_int_equal(c->rejects[0]->n, 3);
    assert_int_equal(c->fence, UINT64_C(1) << 32 | 5);
    assert_string_equal(c->backend, "cpu-avx2");
    if (mode_store_task_get(store, &spec, c->key, &err)) fail_msg("%s", err.text);
    assert_string_equal(spec->code_version, "train-1");
    assert_string_equal(spec->inputs[0]->name, "captions/0000");
    mode__task_spec__free_unpacked(spec, NULL);
    mode__commit__free_unpacked(c, NULL);
    run_record_close(&r);
    free(path);
    mode_digest_bytes("open", 4, open_key);
    if (mode_store_checkpoint_latest(store, &path, open_key, &damaged, &err)) fail_msg("%s", err.text);
    assert_non_null(path);
    assert_int_equal(damaged, 0);
    read_model(path, path);
    free(path);
}

static void read_inputs(const char *root)
{
    struct mode_error err = {0};
    struct plan p = {0};
    char *run = mode_path_join(root, "runs/golden"), *inputs = mode_path_join(run, "inputs.json"),
         *text = text_of(run, "spec.yaml", NULL);
    if (mode_spec_parse(&p.spec, text, "/data", "spec.yaml", &err)) fail_msg("%s", err.text);
    if (plan_inputs_load(&p, inputs, &err)) fail_msg("%s", err.text);
    assert_int_equal(p.shards.n, 1);
    assert_string_equal(p.shards.shard[0].name, "0.tar");
    assert_int_equal(p.shards.shard[0].mtime_ns, 1700000000000000000);
    assert_string_equal(p.task[0].dir, "/data/tasks/t0");
    assert_string_equal(p.encoder_id, "bert:0123456789abcdef:mean:77");
    plan_inputs_forget(&p);
    mode_spec_clear(&p.spec);
    free(p.encoder_id);
    free(p.algorithms);
    free(run);
    free(inputs);
    free(text);
}

static void test_workspaces_of_every_release_are_read(void **state)
{
    (void)state;
    struct mode_error err = {0};
    for (int v = 0; v < n_versions; v++) {
        struct mode_store *store;
        char *root = mode_xasprintf("%s/%s/workspace", dir, version[v]);
        if (mode_store_open(&store, root, &err)) fail_msg("%s", err.text);
        read_records(store, root);
        read_inputs(root);
        mode_store_close(&store);
        free(root);
    }
}

/* ---------------------------------------------------------------------------------------------- the folders */

static void test_this_version_has_its_folder(void **state)
{
    (void)state;
    for (int v = 0; v < n_versions; v++)
        if (strcmp(version[v], mode_version) == 0) return;
    fail_msg("%s has no folder %s. HINT: MODE_WRITE_RECORDS=1 writes it (docs/OPERATIONS.md, \"Upgrading\")", RECORDS,
             mode_version);
}

static int setup(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *ours = mode_xasprintf("%s/%s", RECORDS, mode_version);
    if (getenv("MODE_WRITE_RECORDS")) {
        if (mode_file_exists(ours)) {
            fprintf(stderr, "%s is there: what a release wrote is not written again\n", ours);
            return 1;
        }
        char *now = schema();
        world_ok(mode_dir_make(ours, &err), &err);
        write_text(ours, "schema.txt", now);
        write_messages(ours);
        write_artifacts(ours);
        write_workspace(ours);
        free(now);
    }
    free(ours);
    if (!mkdtemp(dir)) return 1;
    char *copy = mode_xasprintf("cp -r '%s'/. '%s'", RECORDS, dir); /* a store that is opened is written to */
    if (system(copy) != 0) return 1;
    free(copy);
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d)) && n_versions < MAX_VERSIONS;)
        if (e->d_name[0] != '.') version[n_versions++] = mode_xstrdup(e->d_name);
    if (d) closedir(d);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int v = 0; v < n_versions; v++) free(version[v]);
    return mode_dir_remove(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_this_version_has_its_folder),
        cmocka_unit_test(test_messages_of_every_release_are_read),
        cmocka_unit_test(test_messages_only_gain_optional_fields),
        cmocka_unit_test(test_artifacts_of_every_release_are_read),
        cmocka_unit_test(test_workspaces_of_every_release_are_read),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
