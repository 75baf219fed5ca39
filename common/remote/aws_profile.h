/* aws_profile.h - AWS's two files of profiles. Inside of common/remote.
 *
 * Source:  the AWS SDKs and Tools Reference Guide, "shared config and credentials files".
 * Threads: pure, but for the environment. */
#ifndef MODE_REMOTE_AWS_PROFILE_H
#define MODE_REMOTE_AWS_PROFILE_H

#include "base/error.h"

#include <stdbool.h>

struct mode__aws_files {
    char *credentials, *config; /* what stands in them; "" where there is none */
    char *profile;              /* AWS_PROFILE, else "default" */
};

/* The caller clears it whatever the result. */
enum mode_status mode__aws_files_read(struct mode__aws_files *f, struct mode_error *err);
void mode__aws_files_clear(struct mode__aws_files *f);
bool mode__aws_has_profile(const struct mode__aws_files *f, const char *profile);

/* Of a profile in one of the files, or in both, ~/.aws/credentials first; NULL where it is not there or empty. The
 * caller frees. */
char *mode__aws_of_credentials(const struct mode__aws_files *f, const char *profile, const char *key);
char *mode__aws_of_config(const struct mode__aws_files *f, const char *profile, const char *key);
char *mode__aws_setting(const struct mode__aws_files *f, const char *profile, const char *key);

/* The value of key below [section], without blanks around it; NULL: there is none. The last one counts; lines that
 * begin with a blank, "#" or ";" are passed over. key NULL: "" where the section is there. The caller frees. */
char *mode__aws_ini(const char *text, const char *section, const char *key);

/* Frees a text that may be a secret. NULL is none. */
void mode__wipe(char *text);

/* NULL where it is not set, or empty. */
const char *mode__aws_variable(const char *name);
/* The variable, else the setting of the profile of that other name; the caller frees. */
char *mode__aws_variable_or(const char *name, const struct mode__aws_files *f, const char *key);

#endif
