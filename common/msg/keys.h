/* keys.h - CURVE key files and the allow list.
 *
 * A key folder, made by mode_keys_generate, mode 0700, files 0600, one Z85 text of 40 characters each:
 *
 *     server.key server.pub      the coordinator's pair; workers and people need server.pub only
 *     <name>.key <name>.pub      one pair per worker or person
 *     allow                      lines "worker|admin <name> <public key>"; a line that starts with '#' is a
 * comment
 *
 * Threads: no shared state. */
#ifndef MODE_MSG_KEYS_H
#define MODE_MSG_KEYS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define MODE_KEY_Z85 41

enum mode_role { MODE_ROLE_WORKER = 1, MODE_ROLE_ADMIN = 2 };

struct mode_keypair {
    char public_key[MODE_KEY_Z85];
    char secret_key[MODE_KEY_Z85];
};

/* Make folder dir with the server's pair and an empty allow list if they are missing; existing keys are kept.
 */
enum mode_status mode_keys_generate(const char *dir, struct mode_error *err);
/* MODE_E_VALUE when it cannot be the name of a key. */
enum mode_status mode_keys_check_name(const char *name, struct mode_error *err);
/* Make <name>.key/.pub and add name to the allow list. An existing name keeps its pair. Names: letters,
 * digits, '-', '_', '.', at most 63 characters, not "server". */
enum mode_status mode_keys_add(const char *dir, const char *name, enum mode_role role, struct mode_error *err);
/* Read <dir>/<name>.key and .pub. MODE_E_PERM if others may read the secret. */
enum mode_status mode_keys_read(struct mode_keypair *pair, const char *dir, const char *name, struct mode_error *err);
/* Read a public key from a .pub file. */
enum mode_status mode_keys_read_public(char public_key[MODE_KEY_Z85], const char *path, struct mode_error *err);

struct mode_allow_entry {
    char public_key[MODE_KEY_Z85];
    enum mode_role role;
    char name[64];
};
struct mode_allow_list {
    struct mode_allow_entry *entries;
    size_t n;
};
/* A malformed line is MODE_E_CONFIG with its number. At most 16384 entries. */
enum mode_status mode_allow_read(struct mode_allow_list *list, const char *path, struct mode_error *err);
void mode_allow_clear(struct mode_allow_list *list);
/* NULL when the key is not in the list. */
const struct mode_allow_entry *mode_allow_find(const struct mode_allow_list *list, const char *public_key);

#endif
