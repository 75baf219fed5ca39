/* aws_profile.h - AWS's two profile files. Internal to common/remote.
 *
 * Source:  the AWS SDKs and Tools Reference Guide, "shared config and credentials files".
 * Threads: pure, except that the environment is read. */
#ifndef MODE_REMOTE_AWS_PROFILE_H
#define MODE_REMOTE_AWS_PROFILE_H

#include "base/error.h"

#include <stdbool.h>

struct mode__aws_files {
    char *credentials, *config; /* contents; "" for a missing file */
    char *profile;              /* AWS_PROFILE, else "default" */
};

/* The caller clears it whatever the result. */
enum mode_status mode__aws_files_read(struct mode__aws_files *f, struct mode_error *err);
void mode__aws_files_clear(struct mode__aws_files *f);
bool mode__aws_has_profile(const struct mode__aws_files *f, const char *profile);

/* A setting of a profile in one of the files, or in both, ~/.aws/credentials first; NULL if missing or empty. The
 * caller frees. */
char *mode__aws_of_credentials(const struct mode__aws_files *f, const char *profile, const char *key);
char *mode__aws_of_config(const struct mode__aws_files *f, const char *profile, const char *key);
char *mode__aws_setting(const struct mode__aws_files *f, const char *profile, const char *key);

/* The value of key in [section], trimmed; NULL: none. The last one counts; lines that begin with a space, "#" or ";"
 * are skipped. key NULL: "" if the section exists. The caller frees. */
char *mode__aws_ini(const char *text, const char *section, const char *key);

/* Overwrites and frees a text that may be a secret. NULL is fine. */
void mode__wipe(char *text);

/* NULL if unset or empty. */
const char *mode__aws_variable(const char *name);
/* The variable, else the setting `key` of the profile; the caller frees. */
char *mode__aws_variable_or(const char *name, const struct mode__aws_files *f, const char *key);

#endif
