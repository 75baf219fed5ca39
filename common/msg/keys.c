#include "msg/keys.h"

#include "base/file.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { MAX_ALLOWED = 16384, MAX_NAME = 63 };

static bool name_valid(const char *name)
{
    size_t n = strlen(name);
    if (n < 1 || n > MAX_NAME || name[0] == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i])) return false;
    return true;
}

enum mode_status mode_keys_check_name(const char *name, struct mode_error *err)
{
    if (name_valid(name) && strcmp(name, "server") != 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE,
                     "\"%.80s\" is not a name for a key: letters, digits, '-', '_', '.' (not first), at most %d, not "
                     "\"server\"",
                     name, MAX_NAME);
}

static bool key_text_valid(const char *s)
{
    uint8_t raw[32];
    return strlen(s) == MODE_KEY_Z85 - 1 && zmq_z85_decode(raw, s) != NULL;
}

/* One caller at a time changes a key folder; *fd is its lock. */
static enum mode_status lock_folder(const char *dir, int *fd, struct mode_error *err)
{
    enum mode_status st = mode_dir_make(dir, err);
    if (st) return st;
    if (chmod(dir, 0700) != 0)
        return MODE_FAIL(err, MODE_E_PERM, "%s: cannot be made private: %s", dir, strerror(errno));
    char *path = mode_path_join(dir, ".lock");
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0 || flock(*fd, LOCK_EX) != 0)
        st = MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be locked: %s", path, strerror(errno));
    if (st && *fd >= 0) close(*fd);
    free(path);
    return st;
}

static enum mode_status write_private(const char *path, const char *text, struct mode_error *err)
{
    char *temp = mode_xasprintf("%s.tmp-%ld", path, (long)getpid());
    enum mode_status st = MODE_OK;
    size_t n = strlen(text);
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        st = MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be created: %s", temp, strerror(errno));
    else {
        if (fchmod(fd, 0600) != 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) != 0)
            st = MODE_FAIL(err, MODE_E_IO, "%s: cannot be written: %s", temp, strerror(errno));
        close(fd);
        if (!st && rename(temp, path) != 0)
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be created: %s", path, strerror(errno));
        if (st) unlink(temp);
    }
    free(temp);
    return st;
}

/* Makes <name>.pub and <name>.key unless they exist; the secret key is written last and makes the pair valid. */
static enum mode_status make_pair(const char *dir, const char *name, struct mode_error *err)
{
    struct mode_keypair pair;
    char text[MODE_KEY_Z85 + 1];
    char *secret = mode_xasprintf("%s/%s.key", dir, name), *public = mode_xasprintf("%s/%s.pub", dir, name);
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(secret)) {
        if (zmq_curve_keypair(pair.public_key, pair.secret_key) != 0)
            st = MODE_FAIL(err, MODE_E_GENERIC,
                           "ZeroMQ cannot make CURVE keys: %s. HINT: libzmq must be built with libsodium",
                           zmq_strerror(zmq_errno()));
        snprintf(text, sizeof text, "%s\n", pair.public_key);
        if (!st) st = write_private(public, text, err);
        snprintf(text, sizeof text, "%s\n", pair.secret_key);
        if (!st) st = write_private(secret, text, err);
    }
    free(public);
    free(secret);
    return st;
}

enum mode_status mode_keys_generate(const char *dir, struct mode_error *err)
{
    int fd = -1;
    enum mode_status st = lock_folder(dir, &fd, err);
    if (st) return st;
    char *allow = mode_path_join(dir, "allow");
    st = make_pair(dir, "server", err);
    if (!st && !mode_file_exists(allow)) st = write_private(allow, "# worker|admin <name> <public key>\n", err);
    free(allow);
    close(fd);
    return st;
}

enum mode_status mode_keys_add(const char *dir, const char *name, enum mode_role role, struct mode_error *err)
{
    int fd = -1;
    struct mode_keypair pair;
    struct mode_allow_list list = {0};
    enum mode_status st = mode_keys_check_name(name, err);
    if (!st) st = mode_keys_generate(dir, err);
    if (!st) st = lock_folder(dir, &fd, err);
    if (st) return st;
    char *allow = mode_path_join(dir, "allow"), *old = NULL;
    st = make_pair(dir, name, err);
    if (!st) st = mode_keys_read(&pair, dir, name, err);
    if (!st) st = mode_allow_read(&list, allow, err);
    const struct mode_allow_entry *have = st ? NULL : mode_allow_find(&list, pair.public_key);
    if (!st && have && have->role != role)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %s is in the list with another role. HINT: use one name per role", allow,
                       name);
    if (!st && !have) st = mode_file_read(allow, 0, &old, NULL, err);
    if (!st && !have) {
        struct mode_str text = {0};
        mode_str_add_cstr(&text, old);
        mode_str_printf(&text, "%s %s %s\n", role == MODE_ROLE_ADMIN ? "admin" : "worker", name, pair.public_key);
        st = write_private(allow, text.data, err);
        mode_str_clear(&text);
    }
    mode_allow_clear(&list);
    free(old);
    free(allow);
    close(fd);
    return st;
}

static enum mode_status read_key_text(char key[MODE_KEY_Z85], const char *path, struct mode_error *err)
{
    char *text = NULL;
    enum mode_status st = mode_file_read(path, 4096, &text, NULL, err);
    if (st) return st;
    text[strcspn(text, " \t\r\n")] = '\0';
    if (!key_text_valid(text)) /* the text may be a secret: never shown */
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: expected a CURVE key, 40 characters of Z85", path);
    else
        memcpy(key, text, MODE_KEY_Z85);
    free(text);
    return st;
}

enum mode_status mode_keys_read_public(char public_key[MODE_KEY_Z85], const char *path, struct mode_error *err)
{
    return read_key_text(public_key, path, err);
}

enum mode_status mode_keys_read(struct mode_keypair *pair, const char *dir, const char *name, struct mode_error *err)
{
    struct stat sb;
    char *secret = mode_xasprintf("%s/%s.key", dir, name), *public = mode_xasprintf("%s/%s.pub", dir, name);
    enum mode_status st = MODE_OK;
    const bool is_there = stat(secret, &sb) == 0;
    if (!is_there && errno == ENOENT)
        st = MODE_FAIL(
            err, MODE_E_NOINPUT,
            "%s: no such file. HINT: `mode keys` makes key pairs; --key-name (MODE_KEY_NAME) says which pair "
            "of the folder to use",
            secret);
    else if (is_there && (sb.st_mode & 077) != 0)
        st = MODE_FAIL(err, MODE_E_PERM, "%s: others may read this secret key (mode %04o). HINT: chmod 600 %s", secret,
                       (unsigned)(sb.st_mode & 07777), secret);
    if (!st) st = read_key_text(pair->secret_key, secret, err);
    if (!st) st = read_key_text(pair->public_key, public, err);
    free(public);
    free(secret);
    return st;
}

/* ---- allow list ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct mode_allow_entry *)a)->public_key, ((const struct mode_allow_entry *)b)->public_key);
}

static enum mode_status read_entry(struct mode_allow_entry *e, char *line, const char *path, int number,
                                   struct mode_error *err)
{
    char *save = NULL, *role = strtok_r(line, " \t\r", &save), *name = strtok_r(NULL, " \t\r", &save),
         *key = strtok_r(NULL, " \t\r", &save);
    if (!key || !role || !name || strtok_r(NULL, " \t\r", &save))
        return MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: expected \"worker|admin <name> <public key>\"", path, number);
    if (!key_text_valid(key))
        return MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: the key is not 40 characters of Z85", path, number);
    if (!name_valid(name)) return MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: \"%.80s\" is not a name", path, number, name);
    if (strcmp(role, "worker") == 0)
        e->role = MODE_ROLE_WORKER;
    else if (strcmp(role, "admin") == 0)
        e->role = MODE_ROLE_ADMIN;
    else
        return MODE_FAIL(err, MODE_E_CONFIG, "%s:%d: role \"%.80s\", expected worker or admin", path, number, role);
    memcpy(e->public_key, key, MODE_KEY_Z85);
    snprintf(e->name, sizeof e->name, "%s", name);
    return MODE_OK;
}

enum mode_status mode_allow_read(struct mode_allow_list *list, const char *path, struct mode_error *err)
{
    char *text = NULL;
    int number = 0;
    *list = (struct mode_allow_list){0};
    enum mode_status st = mode_file_read(path, 4 << 20, &text, NULL, err);
    if (st) return st;
    list->entries = mode_xcalloc(MAX_ALLOWED, sizeof *list->entries);
    for (char *line = text, *next; !st && line; line = next) { /* not strtok: empty lines count */
        next = strchr(line, '\n');
        if (next) *next++ = '\0';
        number++;
        char first = line[strspn(line, " \t\r")];
        if (first == '\0' || first == '#') continue; /* '#' elsewhere may be part of a key */
        if (list->n == MAX_ALLOWED)
            st = MODE_FAIL(err, MODE_E_CONFIG, "%s: more than %d entries", path, MAX_ALLOWED);
        else if (!(st = read_entry(&list->entries[list->n], line, path, number, err)))
            list->n++;
    }
    free(text);
    if (st) {
        mode_allow_clear(list);
        return st;
    }
    qsort(list->entries, list->n, sizeof *list->entries, by_key);
    return MODE_OK;
}

void mode_allow_clear(struct mode_allow_list *list)
{
    free(list->entries);
    *list = (struct mode_allow_list){0};
}

const struct mode_allow_entry *mode_allow_find(const struct mode_allow_list *list, const char *public_key)
{
    struct mode_allow_entry probe;
    snprintf(probe.public_key, sizeof probe.public_key, "%s", public_key);
    return list->n ? bsearch(&probe, list->entries, list->n, sizeof probe, by_key) : NULL;
}
