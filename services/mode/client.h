/* client.h - requests of the verbs to the coordinator of a workspace. */
#ifndef MODE_SERVICES_MODE_CLIENT_H
#define MODE_SERVICES_MODE_CLIENT_H

#include "base/options.h"
#include "msg/socket.h"

struct client_options {
    const char *workspace, *admin, *key_dir, *key_name, *server_key;
};

/* Rows for a verb's option table whose struct has a field `client`. */
#define CLIENT_OPTIONS(type)                                                                                           \
    MODE_OPT_STR(type, client.workspace, "workspace", ".", "DIR", "the workspace"),                                    \
        MODE_OPT_STR(type, client.admin, "coordinator-admin", NULL, "URL",                                             \
                     "tcp://host:port of a coordinator elsewhere; default: the one of this workspace"),                \
        MODE_OPT_STR(type, client.key_dir, "key-dir", NULL, "DIR", "CURVE keys, for tcp"),                             \
        MODE_OPT_STR(type, client.key_name, "key-name", "admin", "NAME", "whose key in --key-dir"),                    \
        MODE_OPT_STR(type, client.server_key, "server-key", NULL, "FILE", "the coordinator's public key, for tcp")

struct client;

/* MODE_E_USAGE: --coordinator-admin is not an endpoint. client_open checks the same. */
enum mode_status client_check(const struct client_options *o, struct mode_error *err);
enum mode_status client_open(struct client **out, const struct client_options *o, struct mode_error *err);
void client_close(struct client **c);
/* The workspace as given. */
const char *client_workspace(const struct client *c);
/* The options with which another command reaches the same coordinator, such as " --workspace DIR", "" in the folder
 * itself; malloc'd. */
char *client_where(const struct client_options *o);
/* The status that the coordinator gives for a failure; MODE_E_GENERIC if it gives none or an unknown one. */
enum mode_status client_told(bool told, uint32_t status);
/* Sends a request; a Reject becomes an error with its text and status. MODE_E_PEER: no answer (with a hint). */
enum mode_status client_ask(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                            struct mode_error *err);
/* The same for answers that may take long: while the coordinator reports progress, `says` is called with its text (a
 * sentence without its full stop), and the same message is sent again. When says returns false, that text becomes the
 * error. timeout_ms: without any answer. */
typedef bool client_says_fn(void *ctx, const char *text);
enum mode_status client_ask_on(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                               client_says_fn *says, void *ctx, struct mode_error *err);
/* STATUS of one run ("" = all). */
enum mode_status client_status(struct mode_envelope **answer, struct client *c, const char *run, bool workers,
                               uint32_t notes, int timeout_ms, struct mode_error *err);
uint64_t *client_message_id(struct client *c);

#endif
