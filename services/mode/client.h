/* client.h - how the verbs talk to the coordinator of a workspace. */
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

/* MODE_E_USAGE: --coordinator-admin is not an endpoint. client_open asks the same. */
enum mode_status client_check(const struct client_options *o, struct mode_error *err);
enum mode_status client_open(struct client **out, const struct client_options *o, struct mode_error *err);
void client_close(struct client **c);
/* The workspace as given. */
const char *client_workspace(const struct client *c);
/* What a command that is to ask the same coordinator needs behind its verb: " --workspace DIR" or so, "" in the folder
 * itself; malloc'd. */
char *client_where(const struct client_options *o);
/* The status that the coordinator says something failed with; MODE_E_GENERIC where it says none, or one we do not know.
 */
enum mode_status client_told(bool told, uint32_t status);
/* Ask; a Reject becomes an error with its sentence and status. MODE_E_PEER: nobody answers (with a hint). */
enum mode_status client_ask(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                            struct mode_error *err);
/* The same where the answer may take long: as long as the coordinator says that it is at it, says is told what it says
 * (a sentence without its stop), and it is asked again, with the same message. says returns false to end that: the
 * sentence is then the error. timeout_ms: without any answer. */
typedef bool client_says_fn(void *ctx, const char *text);
enum mode_status client_ask_on(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                               client_says_fn *says, void *ctx, struct mode_error *err);
/* STATUS of one run ("" = all). */
enum mode_status client_status(struct mode_envelope **answer, struct client *c, const char *run, bool workers,
                               uint32_t notes, int timeout_ms, struct mode_error *err);
uint64_t *client_message_id(struct client *c);

#endif
