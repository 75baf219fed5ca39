/* aws_variables.h - AWS's environment variables, for tests that must not inherit those of their caller. */
#ifndef MODE_TESTS_AWS_VARIABLES_H
#define MODE_TESTS_AWS_VARIABLES_H

#include <stddef.h>
#include <stdlib.h>

static inline void forget_aws(void)
{
    static const char *const name[] = {"AWS_ACCESS_KEY_ID",
                                       "AWS_SECRET_ACCESS_KEY",
                                       "AWS_SESSION_TOKEN",
                                       "AWS_REGION",
                                       "AWS_DEFAULT_REGION",
                                       "AWS_ENDPOINT_URL_S3",
                                       "AWS_ENDPOINT_URL_STS",
                                       "AWS_ENDPOINT_URL",
                                       "AWS_PROFILE",
                                       "AWS_CONFIG_FILE",
                                       "AWS_SHARED_CREDENTIALS_FILE",
                                       "AWS_WEB_IDENTITY_TOKEN_FILE",
                                       "AWS_ROLE_ARN",
                                       "AWS_ROLE_SESSION_NAME",
                                       "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                       "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                       "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                       "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                                       "AWS_EC2_METADATA_DISABLED",
                                       "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                                       "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                                       "AWS_METADATA_SERVICE_TIMEOUT",
                                       "AWS_METADATA_SERVICE_NUM_ATTEMPTS"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) unsetenv(name[i]);
}

#endif
