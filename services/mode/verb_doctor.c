/* mode doctor - checks that this machine can run a workspace. */
#include "base/file.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "base/system_calls.h"
#include "client.h"
#include "data/image.h"
#include "doctor.h"
#include "pipeline/sources.h"
#include "pipeline/spec.h"
#include "ranges.h"
#include "remote/address.h"
#include "remote/aws.h"
#include "store/artifacts.h"
#include "verb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct doctor_options {
    struct client_options client;
    const char *spec;
    bool gpus;
};

static const struct mode_option table[] = {
    CLIENT_OPTIONS(struct doctor_options),
    MODE_OPT_STR(struct doctor_options, spec, "spec", NULL, "FILE",
                 "also check the inputs of this run spec, and say which key signs requests to S3"),
    MODE_OPT_BARE(struct doctor_options, gpus, "gpus", "check GPUs and nothing else"), MODE_OPT_END};

void doctor_say(int count[DOCTOR_VERDICTS], enum doctor_verdict v, const char *what, const char *fmt, ...)
{
    static const char *const words[] = {"ok", "none", "warn", "BAD"};
    va_list ap;
    printf("%-5s %-12s ", words[v], what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    count[v]++;
}

static void look_at_redis(int count[DOCTOR_VERDICTS])
{
    char line[256] = "", *version;
    FILE *p = popen("redis-server --version 2>/dev/null", "r");
    if (p) {
        if (!fgets(line, sizeof line, p)) line[0] = 0;
        pclose(p);
    }
    version = strstr(line, "v=");
    if (!version)
        doctor_say(count, DOCTOR_BAD, "redis",
                   "redis-server is not installed; apt-get install redis-server, or use --redis URL");
    else if (atoi(version + 2) < 7)
        doctor_say(count, DOCTOR_BAD, "redis", "redis-server %.*s is too old; 7.0 or newer is needed",
                   (int)strcspn(version + 2, " \n"), version + 2);
    else
        doctor_say(count, DOCTOR_OK, "redis", "redis-server %.*s", (int)strcspn(version + 2, " \n"), version + 2);
}

/* Redis warns about 0, the usual value, at every start. Ours is a small index, so this is information only. */
static void look_at_overcommit(int count[DOCTOR_VERDICTS])
{
    char *text = NULL;
    if (mode_file_read("/proc/sys/vm/overcommit_memory", 64, &text, NULL, NULL)) return;
    const int is = atoi(text);
    free(text);
    doctor_say(count, is == 2 ? DOCTOR_WARN : DOCTOR_OK, "overcommit", "vm.overcommit_memory is %d%s", is,
               is == 0   ? ": Redis' log warns of it; nothing needs to be set"
               : is == 2 ? ": forks and large allocations may fail although there is memory. HINT: 0 or 1 "
                           "(docs/OPERATIONS.md, \"Redis and vm.overcommit_memory\")"
                         : "");
}

/* A remote coordinator has its own Redis; what is checked here is that it accepts our key. */
static void look_at_coordinator(int count[DOCTOR_VERDICTS], const struct client_options *o)
{
    struct client *c = NULL;
    struct mode_envelope *answer = NULL;
    struct mode_error err = {0};
    enum mode_status st = client_open(&c, o, &err);
    if (!st) st = client_status(&answer, c, "", true, 0, 5000, &err);
    if (st)
        doctor_say(count, DOCTOR_BAD, "coordinator", "%s", err.text);
    else if (!answer->msg->status_reply->ready)
        doctor_say(count, DOCTOR_BAD, "coordinator", "%s answers, but its Redis does not", o->admin);
    else
        doctor_say(count, answer->msg->status_reply->n_workers ? DOCTOR_OK : DOCTOR_WARN, "coordinator",
                   "%s answers, %zu worker%s connected", o->admin, answer->msg->status_reply->n_workers,
                   answer->msg->status_reply->n_workers == 1 ? " is" : "s are");
    mode_envelope_free(&answer);
    client_close(&c);
}

/* The nearest existing folder at or above path; the caller frees. */
static char *existing_folder(const char *path)
{
    char *base = mode_xstrdup(path), *slash;
    while (!mode_file_exists(base) && (slash = strrchr(base, '/')) && slash != base) *slash = 0;
    if (mode_file_exists(base)) return base;
    free(base);
    return mode_xstrdup(path[0] == '/' ? "/" : ".");
}

/* A store also opens on filesystems without locks, but `mode up` and `mode gc` refuse to work there. */
static enum mode_status look_at_lock(const char *root, const char *workspace, struct mode_error *err)
{
    char *path = mode_path_join(root, "lock");
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum mode_status st = fd < 0 ? mode_input_fail(err, errno, path, "be opened")
                                 : mode_file_lock(fd, LOCK_SH, workspace, err);
    if (fd >= 0) close(fd);
    free(path);
    return st == MODE_E_TEMP ? MODE_OK : st;
}

/* If there is no workspace yet, none is left behind: a store is created where it would be, and removed again. */
static void look_at_workspace(int count[DOCTOR_VERDICTS], const char *workspace)
{
    struct mode_store *store = NULL;
    struct mode_error err = {0};
    char *id = mode_path_join(workspace, "store-id"), *base = existing_folder(workspace), *probe = NULL;
    bool exists = mode_file_exists(id);
    enum mode_status st = MODE_OK;
    if (!exists) {
        probe = mode_path_join(base, ".mode-doctor-XXXXXX");
        if (!mkdtemp(probe)) {
            st = MODE_FAIL(&err, MODE_E_CREATE, "%s: nothing can be created in %s: %s", workspace, base,
                           strerror(errno));
            free(probe);
            probe = NULL;
        }
    }
    if (!st) st = mode_store_open(&store, exists ? workspace : probe, &err);
    if (st) {
        doctor_say(count, DOCTOR_BAD, "workspace", "%s", err.text);
    } else {
        uint64_t free_bytes = mode_store_free_bytes(store, NULL);
        char size[MODE_SIZE_TEXT];
        if (look_at_lock(exists ? workspace : probe, workspace, &err))
            doctor_say(count, DOCTOR_BAD, "workspace", "%s", err.text);
        else
            doctor_say(count, DOCTOR_OK, "workspace", "%s: %swritable, with hard links and locks", workspace,
                       exists ? "" : "not created yet (`mode up` creates it); ");
        doctor_say(count,
                   free_bytes < (uint64_t)1 << 30    ? DOCTOR_BAD
                   : free_bytes < (uint64_t)10 << 30 ? DOCTOR_WARN
                                                     : DOCTOR_OK,
                   "disk", "%s free%s", mode_size_text(size, free_bytes),
                   free_bytes < (uint64_t)10 << 30
                       ? "; a run keeps three times a model's weights for each of its models, and its vectors. HINT: "
                         "another disk, or `mode gc`"
                       : "");
    }
    mode_store_close(&store);
    if (probe) mode_dir_remove(probe, NULL);
    free(probe);
    free(base);
    free(id);
}

static void look_at_machine(int count[DOCTOR_VERDICTS])
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128], size[MODE_SIZE_TEXT];
    uint64_t available = 0;
    struct rlimit files;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "MemAvailable:", 13) == 0) available = strtoull(line + 13, NULL, 10) << 10;
    if (f) fclose(f);
    doctor_say(count,
               available < 1000000000   ? DOCTOR_BAD
               : available < 4000000000 ? DOCTOR_WARN
                                        : DOCTOR_OK,
               "memory", "%s available", mode_size_text(size, available));
    doctor_say(count, DOCTOR_OK, "processors", "%d", mode_parallel_threads());
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        doctor_say(count, files.rlim_cur < 1024 ? DOCTOR_WARN : DOCTOR_OK, "open files", "%llu at most",
                   (unsigned long long)files.rlim_cur);
}

static bool names_s3(const struct mode_spec_list *sources)
{
    for (size_t i = 0; i < sources->n; i++)
        if (strcasestr(sources->item[i], "s3://")) return true;
    return false;
}

/* Shows the key that this machine would use; no request is sent to a bucket. */
static void look_at_s3(int count[DOCTOR_VERDICTS])
{
    struct mode_aws a;
    struct mode_error err = {0};
    char until[64] = "";
    if (mode_aws_find(&a, NULL, &err))
        doctor_say(count, DOCTOR_BAD, "s3", "%s", err.text);
    else if (!a.id)
        doctor_say(count, DOCTOR_NONE, "s3", "no key, so requests are not signed (%s); region %s", a.source, a.region);
    else {
        const time_t end = (time_t)a.end;
        struct tm tm;
        if (a.end != INT64_MAX && gmtime_r(&end, &tm)) strftime(until, sizeof until, ", until %Y-%m-%d %H:%M:%SZ", &tm);
        doctor_say(count, DOCTOR_OK, "s3", "the key of %s%s; region %s%s%s", a.source, until, a.region,
                   a.endpoint ? " at " : "", a.endpoint ? a.endpoint : "");
    }
    mode_aws_clear(&a);
}

/* Lets a decoder process reject data that is not a picture. */
static void look_at_decoders(int count[DOCTOR_VERDICTS])
{
    struct mode_error err = {0};
    int width, height;
    if (mode_image_header((const uint8_t *)"no picture", 10, &width, &height, &err) != MODE_E_FORMAT)
        doctor_say(count, DOCTOR_BAD, "pictures", "%s", err.text);
    else if (!mode_system_calls_can_lock())
        doctor_say(count, DOCTOR_WARN, "pictures",
                   "decoded in processes of their own that are not locked: this system allows no seccomp filter, and "
                   ".pt files are not read");
    else
        doctor_say(count, DOCTOR_OK, "pictures", "decoded in locked processes");
}

/* Remote shards are only counted, without requests. */
static void look_at_inputs(int count[DOCTOR_VERDICTS], const struct mode_spec *spec)
{
    const struct mode_spec_list *lists[] = {&spec->data_train, &spec->data_added};
    struct mode_spec_list sources = {0};
    struct mode_shards shards;
    struct mode_error err = {0};
    char size[MODE_SIZE_TEXT], far[80] = "";
    uint64_t bytes = 0;
    size_t n_far = 0;
    for (size_t l = 0; l < 2; l++) mode_spec_list_copy(&sources, lists[l]);
    enum mode_status st = mode_sources_expand(&shards, sources.item, sources.n, spec->folder, &err);
    for (size_t i = 0; i < shards.n; i++) {
        bytes += shards.shard[i].size;
        n_far += mode_remote_is(shards.shard[i].path);
    }
    if (n_far) snprintf(far, sizeof far, ", %zu of them remote, which were not contacted", n_far);
    if (st)
        doctor_say(count, DOCTOR_BAD, "inputs", "data: %s", err.text);
    else
        doctor_say(count, DOCTOR_OK, "inputs",
                   "%zu shard%s (%s here%s), %sthe merges%s and the evaluation tasks of %s are there", shards.n,
                   MODE_PLURAL(shards.n), mode_size_text(size, bytes), far,
                   mode_spec_awaits_encoder(spec) ? "" : "the encoder, ",
                   spec->train.init[0] && !mode_spec_awaits_init(spec) ? ", the model to start from" : "", spec->name);
    mode_shards_clear(&shards);
    mode_spec_list_clear(&sources);
}

static void look_at_spec(int count[DOCTOR_VERDICTS], const char *path)
{
    struct mode_spec spec;
    struct mode_error err = {0};
    if (mode_spec_load(&spec, path, NULL, &err)) {
        doctor_say(count, DOCTOR_BAD, "spec", "%s", err.text);
        return;
    }
    if (mode_spec_awaits_encoder(&spec))
        doctor_say(count, DOCTOR_NONE, "encoder", "%s is not in the cache yet; `mode run` downloads it",
                   spec.encoder.hub);
    if (mode_spec_awaits_init(&spec))
        doctor_say(count, DOCTOR_NONE, "train.init", "%s is not in the cache yet; `mode run` downloads it",
                   spec.train.init_hub);
    if (mode_spec_check(&spec, false, &err))
        doctor_say(count, DOCTOR_BAD, "inputs", "%s", err.text);
    else
        look_at_inputs(count, &spec);
    if (names_s3(&spec.data_train) || names_s3(&spec.data_added)) look_at_s3(count);
    mode_spec_clear(&spec);
}

static enum mode_status doctor(int argc, char **argv, struct mode_error *err)
{
    struct doctor_options o = {0};
    int n_args, count[DOCTOR_VERDICTS] = {0};
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode doctor [options]",
                          "Checks whether this machine can run a workspace: Redis (or the coordinator that "
                          "--coordinator-admin names), filesystem, disk, memory, decoders, GPUs, inputs.\n"
                          "Exit: 0 no problem found, 78 at least one.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if ((st = arguments_check(n_args, 0, argv, NULL, err))) return st;
    if ((st = client_check(&o.client, err))) return st;
    if (o.gpus) {
        doctor_gpus(count, MODE_CUDA_MAJOR);
        goto out;
    }
    if (o.client.admin && *o.client.admin) {
        look_at_coordinator(count, &o.client);
    } else {
        look_at_redis(count);
        look_at_overcommit(count);
    }
    look_at_workspace(count, o.client.workspace);
    look_at_machine(count);
    look_at_decoders(count);
    doctor_gpus(count, MODE_CUDA_MAJOR);
    if (o.spec) look_at_spec(count, o.spec);
out:
    if (count[DOCTOR_BAD])
        return MODE_FAIL(err, MODE_E_CONFIG, "%d problem%s to fix", count[DOCTOR_BAD], MODE_PLURAL(count[DOCTOR_BAD]));
    return MODE_OK;
}

const struct mode_verb mode_verb_doctor = {"doctor", "check that this machine can run a workspace", doctor};
