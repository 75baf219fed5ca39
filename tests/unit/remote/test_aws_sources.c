/* Sources of S3 credentials, against mocks of Amazon's services (tests/tools/aws_roles.py): which source is used, the
 * error of each, and that expiring keys are refreshed in time. Needs python3. */
#include "aws_variables.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "remote/aws.h"
#include "remote/aws_source.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char *home, *at; /* the server's folder; its address */
static pid_t server;

static void put(const char *name, const char *text)
{
    struct mode_error err;
    char *path = mode_path_join(home, name);
    if (mode_file_write_atomic(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    free(path);
}

static void set(const char *name, const char *address, const char *path)
{
    char *text = mode_xasprintf("%s%s", address, path);
    setenv(name, text, 1);
    free(text);
}

static char *in_home(const char *name)
{
    return mode_path_join(home, name);
}

/* The number of logged requests that start with this text. */
static int asked(const char *part)
{
    char *path = in_home("requests"), *text = NULL;
    int n = 0;
    if (mode_file_exists(path)) assert_int_equal(mode_file_read(path, 0, &text, NULL, NULL), MODE_OK);
    for (const char *c = text; c && (c = strstr(c, part)); c++) n++;
    free(text);
    free(path);
    return n;
}

static int start_server(void **state)
{
    (void)state;
    char line[32] = "", *site;
    int out[2];
    struct mode_error err;
    if (mode_dir_temporary(&home, &err)) return 1;
    site = in_home("site");
    if (mode_dir_make(site, &err) || pipe(out) != 0) return 1;
    if ((server = fork()) == 0) {
        dup2(out[1], 1);
        execlp("python3", "python3", "-u", MODE_SOURCE_DIR "/tests/tools/shard_server.py", site, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    const bool there = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    free(site);
    line[strcspn(line, "\n")] = '\0';
    at = mode_xasprintf("http://127.0.0.1:%s", line);
    setenv("no_proxy", "127.0.0.1", 1);
    return there ? 0 : 1;
}

static int stop_server(void **state)
{
    (void)state;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    mode_dir_remove(home, NULL);
    free(home);
    free(at);
    return 0;
}

static int begin(void **state)
{
    (void)state;
    forget_aws();
    char *path = in_home(".aws");
    struct mode_error err;
    if (mode_dir_remove(path, &err) || mode_dir_make(path, &err)) return 1;
    free(path);
    setenv("HOME", home, 1);
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", at, "");
    set("AWS_ENDPOINT_URL_STS", at, "/sts");
    put("faults", "");
    put("life", "3600");
    return 0;
}

static void use_web_identity(const char *session)
{
    char *file = in_home("web-token");
    put("web-token", "right.web/token==\n");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file, 1);
    setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/web", 1);
    setenv("AWS_ROLE_SESSION_NAME", session, 1);
    setenv("AWS_REGION", "eu-test-1", 1);
    free(file);
}

/* A session's key, from the given source. */
static void gives(const char *source, const char *region)
{
    struct mode_aws a;
    struct mode_error err;
    if (mode_aws_find(&a, NULL, &err)) fail_msg("%s", err.text);
    if (!a.id) fail_msg("no key: %s", a.source);
    if (!strstr(a.source, source)) fail_msg("\"%s\" lacks \"%s\"", a.source, source);
    assert_string_equal(a.region, region);
    assert_non_null(a.token);
    assert_true(a.end > time(NULL) + 3000 && a.again < a.end && a.again > time(NULL));
    mode_aws_clear(&a);
}

static void gives_none(const char *why)
{
    struct mode_aws a;
    struct mode_error err;
    if (mode_aws_find(&a, NULL, &err)) fail_msg("%s", err.text);
    assert_null(a.id);
    if (!strstr(a.source, why)) fail_msg("\"%s\" lacks \"%s\"", a.source, why);
    mode_aws_clear(&a);
}

static void refuses(enum mode_status want, const char *part)
{
    struct mode_aws a;
    struct mode_error err = {0};
    const enum mode_status st = mode_aws_find(&a, NULL, &err);
    if (st != want || !strstr(err.text, part)) fail_msg("%d, \"%s\"; expected %d, \"%s\"", st, err.text, want, part);
    if (strstr(err.text, "hidden") || strstr(err.text, "issued/") || strstr(err.text, "web/token"))
        fail_msg("a secret is shown: %s", err.text);
    mode_aws_clear(&a);
}

/* ---------------------------------------------------------------------------------------------- each of the sources */

static void test_a_web_identity(void **state)
{
    (void)state;
    use_web_identity("one");
    gives("the role arn:aws:iam::1:role/web by the web identity of", "eu-test-1");
    gives("the role arn:aws:iam::1:role/web", "eu-test-1");
    assert_int_equal(asked("POST /sts"), 1); /* cached */
    /* with the options of its profile */
    begin(NULL);
    char *file = in_home("web-token"),
         *config = mode_xasprintf("[default]\nregion = eu-test-1\nrole_arn = arn:aws:iam::1:role/other\n"
                                  "web_identity_token_file = %s\n",
                                  file);
    put(".aws/config", config);
    gives("the role arn:aws:iam::1:role/other", "eu-test-1");
    free(config);
    free(file);
}

static void test_a_web_identity_that_is_none(void **state)
{
    (void)state;
    use_web_identity("two");
    unsetenv("AWS_ROLE_ARN");
    refuses(MODE_E_CONFIG, "AWS_WEB_IDENTITY_TOKEN_FILE (web_identity_token_file) is set and AWS_ROLE_ARN");
    setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/nobodys", 1);
    refuses(MODE_E_PERM,
            "HTTP 403; it says AccessDenied: Not authorized to perform sts:AssumeRole. HINT: the role's trust");
    setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/web", 1);
    put("web-token", "hidden");
    refuses(MODE_E_PERM, "HTTP 400; it says InvalidIdentityToken");
    put("web-token", "\n");
    refuses(MODE_E_CONFIG, "the file of the web identity is empty");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere", 1);
    refuses(MODE_E_CONFIG, "AWS_WEB_IDENTITY_TOKEN_FILE: /nowhere");
    use_web_identity("two");
    put("faults", "503 /sts");
    refuses(MODE_E_PEER, "HTTP 503");
    put("faults", "503 2 /sts");
    gives("role/web", "eu-test-1");
    use_web_identity("three");
    setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1", 1);
    refuses(MODE_E_PEER, "http://127.0.0.1:1/: ");
    setenv("AWS_ENDPOINT_URL_STS", "hidden.example", 1);
    refuses(MODE_E_CONFIG, "AWS_ENDPOINT_URL_STS is not the address");
}

static void test_a_container(void **state)
{
    (void)state;
    set("AWS_CONTAINER_CREDENTIALS_FULL_URI", at, "/container");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container token==", 1);
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* not used for the machine's metadata */
    setenv("no_proxy", "", 1);
    gives("the container's role (AWS_CONTAINER_CREDENTIALS_FULL_URI)", "us-east-1");
    unsetenv("http_proxy");
    setenv("no_proxy", "127.0.0.1", 1);
    char *file = in_home("token");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file, 1);
    put("token", "container token==\n"); /* takes precedence over the variable */
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hidden", 1);
    gives("the container's role", "us-east-1");
    put("token", "hidden");
    put("life", "1");
    unsetenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    refuses(MODE_E_PERM, "HTTP 403; it says AccessDeniedException: Invalid token");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hidden\nX: y", 1);
    refuses(MODE_E_CONFIG, "expected a token on a single line");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere", 1);
    refuses(MODE_E_CONFIG, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: /nowhere");
    free(file);
}

static void test_where_containers_may_ask(void **state)
{
    (void)state;
    static const char *const right[] = {"https://anybody.example/keys", "http://169.254.170.2/a",
                                        "http://LOCALHOST:80/a",        "http://127.9.9.9/a",
                                        "http://[::1]:8080/a",          "http://169.254.170.23/v1/keys",
                                        "http://[fd00:ec2::23]/v1"},
                             *const wrong[] = {"http://10.0.0.1/a",
                                               "http://127.0.0.1.evil.example/a",
                                               "http://127.0.0.1@evil.example/a",
                                               "http://169.254.170.22/",
                                               "ftp://127.0.0.1/",
                                               "keys",
                                               "http://"};
    struct mode__aws_files f;
    struct mode__aws_source s;
    struct mode_error err;
    assert_int_equal(mode__aws_files_read(&f, &err), MODE_OK);
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", right[i], 1);
        if (mode__aws_source_find(&s, &f, NULL, NULL, &err)) fail_msg("%s: %s", right[i], err.text);
        assert_string_equal(s.url, right[i]);
        mode__aws_source_clear(&s);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", wrong[i], 1);
        if (mode__aws_source_find(&s, &f, NULL, NULL, &err) != MODE_E_CONFIG) fail_msg("%s is taken", wrong[i]);
        mode__aws_source_clear(&s);
    }
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/keys?id=1", 1); /* it takes precedence */
    assert_int_equal(mode__aws_source_find(&s, &f, NULL, NULL, &err), MODE_OK);
    assert_string_equal(s.url, "http://169.254.170.2/v2/keys?id=1");
    mode__aws_source_clear(&s);
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@evil.example/", 1);
    assert_int_equal(mode__aws_source_find(&s, &f, NULL, NULL, &err), MODE_E_CONFIG);
    mode__aws_source_clear(&s);
    mode__aws_files_clear(&f);
}

static void test_a_machine(void **state)
{
    (void)state;
    gives("the role of this machine (http://127.0.0.1", "eu-test-1");
    setenv("AWS_DEFAULT_REGION", "eu-west-9", 1);
    gives("the role of this machine", "eu-west-9");
    setenv("AWS_EC2_METADATA_DISABLED", "TRUE", 1);
    gives_none("AWS_EC2_METADATA_DISABLED is true");
}

static void test_a_machine_without_a_role(void **state)
{
    (void)state;
    /* each is another source than the cached ones */
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", 1);
    gives_none("the role of this machine (http://127.0.0.1:1): ");
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", at, "/none");
    gives_none("HTTP 403");
    char *local = mode_xasprintf("http://localhost%s", strrchr(at, ':'));
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", local, 1);
    put("faults", "404 security-credentials");
    gives_none("the machine has no role");
    gives_none("the machine has no role");
    assert_int_equal(asked("security-credentials/ 404"), 1); /* it is not requested again at once */
    setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "2", 1);
    setenv("AWS_METADATA_SERVICE_TIMEOUT", "1", 1);
    put("faults", "503 /latest/api/token");
    refuses(MODE_E_PEER, "the role of this machine (http://localhost");
    free(local);
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", at, "/slow");
    put("faults", "stall /slow/latest/api/token\n");
    const double from = mode_clock_s();
    gives_none("in 1 s. HINT: in a container");
    assert_true(mode_clock_s() - from > 1.9 && mode_clock_s() - from < 5);
    setenv("AWS_METADATA_SERVICE_TIMEOUT", "soon", 1);
    refuses(MODE_E_CONFIG, "AWS_METADATA_SERVICE_TIMEOUT: expected a number");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "hidden", 1);
    refuses(MODE_E_CONFIG, "AWS_EC2_METADATA_SERVICE_ENDPOINT is not an address");
}

static void process_is(const char *command)
{
    char *config = mode_xasprintf("[profile p]\ncredential_process = %s\n", command);
    put(".aws/config", config);
    free(config);
    setenv("AWS_PROFILE", "p", 1);
}

static void test_a_process(void **state)
{
    (void)state;
    char *script = in_home("give keys.sh"), *command;
    put("give keys.sh",
        "echo '{\"Version\": 1, \"AccessKeyId\": \"P\", \"SecretAccessKey\": \"'\"$1\"'\", \"SessionToken\": "
        "\"hidden\", \"Expiration\": \"2099-01-02T03:04:05.5+01:00\"}'; echo noise >&2");
    command = mode_xasprintf("/bin/sh '%s' \"a b\" c", script);
    process_is(command);
    refuses(MODE_E_FORMAT, "credential_process of the profile \"p\": SecretAccessKey: character 2");
    free(command);
    command = mode_xasprintf("sh %s/give\\ keys.sh hidden", home);
    process_is(command);
    gives("credential_process of the profile \"p\"", "us-east-1");
    free(command);
    process_is("sh -c 'echo first >&2; echo Token has expired, sign in. >&2; exit 3'");
    refuses(MODE_E_PERM, "credential_process of the profile \"p\": exit 3; it says Token has expired, sign in");
    process_is("sh -c 'kill -9 $$'");
    refuses(MODE_E_PERM, "was ended by signal 9");
    process_is("echo hidden");
    refuses(MODE_E_FORMAT, "the answer is not a JSON object");
    process_is("echo '{\"Version\": 2}'");
    refuses(MODE_E_FORMAT, "is of another version; expected \"Version\": 1");
    process_is("echo '{\"Version\": 1, \"SecretAccessKey\": \"hidden\"}'");
    refuses(MODE_E_FORMAT, "the answer has no AccessKeyId");
    process_is("/nowhere/keys --now");
    refuses(MODE_E_CONFIG, "/nowhere/keys cannot be started: No such file");
    process_is("sh -c 'oh");
    refuses(MODE_E_CONFIG, "a quote in it is not closed");
    process_is("head -c 1000000 /dev/zero");
    refuses(MODE_E_FORMAT, "writes more than");
    free(script);
}

static bool not_long(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return mode_clock_s() < *(double *)ctx;
}

static void test_a_source_that_is_stopped(void **state)
{
    (void)state;
    double until = mode_clock_s() + 0.3;
    const struct mode_remote_watch watch = {not_long, &until};
    struct mode_aws a;
    struct mode_error err;
    process_is("sleep 50");
    assert_int_equal(mode_aws_find(&a, &watch, &err), MODE_E_STOPPED);
    mode_aws_clear(&a);
    until = mode_clock_s() + 0.3;
    process_is("sh -c 'exec >/dev/null 2>&1; sleep 8'"); /* nothing listens any more */
    assert_int_equal(mode_aws_find(&a, &watch, &err), MODE_E_STOPPED);
    mode_aws_clear(&a);
    assert_true(mode_clock_s() < until + 5);
    begin(NULL);
    use_web_identity("stopped");
    put("faults", "stall /sts");
    until = mode_clock_s() + 0.3;
    assert_int_equal(mode_aws_find(&a, &watch, &err), MODE_E_STOPPED);
    mode_aws_clear(&a);
    assert_true(mode_clock_s() < until + 5);
}

/* ---------------------------------------------------------------------------------------------- roles of profiles */

static void test_a_role_that_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *profile;
        enum mode_status st;
        const char *words;
    } want[] = {
        {"a", MODE_OK, "the role arn:aws:iam::1:role/other, assumed by the profile \"base\""},
        {"b", MODE_OK, "the role arn:aws:iam::1:role/web, assumed by the role arn:aws:iam::1:role/other, assumed by"},
        {"c", MODE_OK, "assumed by the role of this machine"},
        {"d", MODE_E_PERM, "it says AccessDenied"},
        {"e", MODE_E_PERM, "it says SignatureDoesNotMatch: The request signature does not match"},
        {"f", MODE_E_CONFIG, "credential_source = Environment, which has no keys"},
        {"g", MODE_E_CONFIG, "credential_source is \"Other\"; expected Environment"},
        {"h", MODE_E_CONFIG, "has role_arn, and neither source_profile nor credential_source"},
        {"i", MODE_E_CONFIG, "its source_profile \"none\" is in neither file"},
        {"j", MODE_E_CONFIG, "a chain of profiles that loops back to \"j\""},
        {"l", MODE_E_CONFIG, "has mfa_serial, and a code cannot be asked for"},
        {"m", MODE_E_CONFIG, "its source_profile \"empty\" has no keys"},
    };
    put(".aws/credentials", "[base]\naws_access_key_id = AKIDTEST\naws_secret_access_key = secret/of+the=test\n"
                            "aws_session_token = token+of/test==\n");
    put(".aws/config", "[profile a]\nrole_arn = arn:aws:iam::1:role/other\nsource_profile = base\nexternal_id = door\n"
                       "region = eu-test-1\n[profile b]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = a\n"
                       "region = eu-test-1\n[profile c]\nrole_arn = arn:aws:iam::1:role/web\nregion = eu-test-1\n"
                       "credential_source = Ec2InstanceMetadata\n[profile d]\nrole_arn = arn:aws:iam::1:role/web\n"
                       "source_profile = base\nexternal_id = window\nregion = eu-test-1\n"
                       "[profile e]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = base\nregion = eu-test-2\n"
                       "[profile f]\nrole_arn = arn:aws:iam::1:role/web\ncredential_source = Environment\n"
                       "[profile g]\nrole_arn = arn:aws:iam::1:role/web\ncredential_source = Other\n"
                       "[profile h]\nrole_arn = arn:aws:iam::1:role/web\n"
                       "[profile i]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = none\n"
                       "[profile j]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = k\n"
                       "[profile k]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = j\n"
                       "[profile l]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = base\nmfa_serial = 1\n"
                       "[profile m]\nrole_arn = arn:aws:iam::1:role/web\nsource_profile = empty\n[profile empty]\n"
                       "region = r\n");
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        setenv("AWS_PROFILE", want[i].profile, 1);
        if (want[i].st)
            refuses(want[i].st, want[i].words);
        else
            gives(want[i].words, "eu-test-1");
    }
}

/* A profile with an unsupported source is an error: the next source is not tried. */
static void test_what_is_not_done(void **state)
{
    (void)state;
    set("AWS_CONTAINER_CREDENTIALS_FULL_URI", at, "/container");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container token==", 1);
    put(".aws/credentials", "[default]\naws_access_key_id = hidden\naws_secret_access_key = hidden\n");
    put(".aws/config",
        "[default]\nsso_session = s\nsso_account_id = 1\n[profile l]\nlogin_session = arn\n[sso-session s]\n");
    refuses(MODE_E_CONFIG,
            "the profile \"default\" has sso_session, and nobody is signed in here. HINT: another profile "
            "with credential_process = aws configure export-credentials --profile default");
    setenv("AWS_PROFILE", "l", 1);
    refuses(MODE_E_CONFIG, "has login_session");
}

static void is_of(enum mode__aws_kind kind, const char *id)
{
    struct mode__aws_files f;
    struct mode__aws_source s;
    struct mode_error err;
    assert_int_equal(mode__aws_files_read(&f, &err), MODE_OK);
    if (mode__aws_source_find(&s, &f, NULL, NULL, &err)) fail_msg("%s", err.text);
    assert_int_equal(s.kind, kind);
    if (id) assert_string_equal(s.id, id);
    mode__aws_source_clear(&s);
    mode__aws_files_clear(&f);
}

static void test_the_order(void **state)
{
    (void)state;
    static const char keys[] = "[default]\naws_access_key_id = C\naws_secret_access_key = c\n",
                      config[] = "[default]\nrole_arn = r\nsource_profile = default\ncredential_process = p\n"
                                 "aws_access_key_id = F\naws_secret_access_key = f\n";
    setenv("AWS_ACCESS_KEY_ID", "E", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "e", 1);
    use_web_identity("x");
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/a", 1);
    put(".aws/credentials", keys);
    put(".aws/config", config);
    is_of(MODE__AWS_KEYS, "E");
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    is_of(MODE__AWS_ROLE, NULL);
    put(".aws/config", strchr(strstr(config, "source"), '\n') + 1); /* no section: nothing */
    is_of(MODE__AWS_WEB_IDENTITY, NULL);
    unsetenv("AWS_WEB_IDENTITY_TOKEN_FILE");
    is_of(MODE__AWS_KEYS, "C");
    put(".aws/credentials", "");
    put(".aws/config", "[profile default]\ncredential_process = p\naws_access_key_id = F\naws_secret_access_key = f\n");
    is_of(MODE__AWS_PROCESS, NULL);
    put(".aws/config", "[default]\naws_access_key_id = F\naws_secret_access_key = f\n");
    is_of(MODE__AWS_KEYS, "F");
    put(".aws/config", "");
    is_of(MODE__AWS_CONTAINER, NULL);
    unsetenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    is_of(MODE__AWS_MACHINE, NULL);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    is_of(MODE__AWS_NONE, NULL);
    put(".aws/credentials", "[default]\naws_access_key_id = C\n"); /* half a key in each file is no key */
    put(".aws/config", "[default]\naws_secret_access_key = hidden\n");
    refuses(MODE_E_CONFIG, "the profile \"default\": aws_access_key_id is set and aws_secret_access_key is not");
}

/* ---------------------------------------------------------------------------------------------- keys that end */

enum { THREADS = 8 };

struct life {
    double until;
    _Atomic int n_dead, n_failed, n;
    char last[THREADS][64];
    _Atomic int n_changes;
};

static struct life life;

static void *live(void *ctx)
{
    char *last = ctx;
    while (mode_clock_s() < life.until) {
        struct mode_aws a;
        struct mode_error err;
        const time_t from = time(NULL);
        if (mode_aws_find(&a, NULL, &err))
            life.n_failed++;
        else if (a.end <= from)
            life.n_dead++;
        else if (strcmp(a.id, last) != 0) {
            snprintf(last, sizeof life.last[0], "%s", a.id);
            life.n_changes++;
        }
        life.n++;
        mode_aws_clear(&a);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return NULL;
}

static void live_for(double seconds)
{
    pthread_t thread[THREADS];
    life = (struct life){.until = mode_clock_s() + seconds};
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, live, life.last[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
}

/* Keys that are valid for four seconds, used for nine by eight threads: none gets an expired key, all get new ones, and
 * one thread makes the request. */
static void test_keys_that_end(void **state)
{
    (void)state;
    use_web_identity("short");
    put("life", "4");
    const int before = asked("POST /sts");
    live_for(9);
    const int n = asked("POST /sts") - before;
    assert_int_equal(life.n_dead, 0);
    assert_int_equal(life.n_failed, 0);
    assert_true(n >= 2 && n <= 5);
    assert_true(life.n_changes >= 2 * THREADS && life.n_changes <= n * THREADS);
}

/* A source that fails before the key expires is no error; after that it is. */
static void test_a_source_that_fails_meanwhile(void **state)
{
    (void)state;
    use_web_identity("meanwhile");
    put("life", "8");
    struct mode_aws a;
    struct mode_error err;
    assert_int_equal(mode_aws_find(&a, NULL, &err), MODE_OK);
    const int64_t end = a.end;
    char *id = mode_xstrdup(a.id);
    mode_aws_clear(&a);
    put("faults", "503 /sts");
    while (time(NULL) < end - 1) {
        if (mode_aws_find(&a, NULL, &err)) fail_msg("%s", err.text);
        assert_string_equal(a.id, id);
        mode_aws_clear(&a);
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
    assert_true(asked("POST /sts 503") > 0);
    while (time(NULL) <= end) nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    refuses(MODE_E_PEER, "keys for S3: the role arn:aws:iam::1:role/web by the web identity of");
    put("faults", "");
    assert_int_equal(mode_aws_find(&a, NULL, &err), MODE_OK);
    assert_string_not_equal(a.id, id);
    free(id);
    /* the store says that they have expired, early */
    id = mode_xstrdup(a.id);
    mode_aws_over(&a);
    assert_int_equal(mode_aws_find(&a, NULL, &err), MODE_OK);
    assert_string_not_equal(a.id, id);
    mode_aws_clear(&a);
    free(id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_web_identity, begin),
        cmocka_unit_test_setup(test_a_web_identity_that_is_none, begin),
        cmocka_unit_test_setup(test_a_container, begin),
        cmocka_unit_test_setup(test_where_containers_may_ask, begin),
        cmocka_unit_test_setup(test_a_machine, begin),
        cmocka_unit_test_setup(test_a_machine_without_a_role, begin),
        cmocka_unit_test_setup(test_a_process, begin),
        cmocka_unit_test_setup(test_a_source_that_is_stopped, begin),
        cmocka_unit_test_setup(test_a_role_that_is_taken, begin),
        cmocka_unit_test_setup(test_what_is_not_done, begin),
        cmocka_unit_test_setup(test_the_order, begin),
        cmocka_unit_test_setup(test_keys_that_end, begin),
        cmocka_unit_test_setup(test_a_source_that_fails_meanwhile, begin),
    };
    if (system("command -v python3 >/dev/null") != 0) {
        fprintf(stderr, "test_aws_sources: python3 is not here: skipped\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
