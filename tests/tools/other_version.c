/* other_version.c - linked into a program it makes it report another package version, with the same protocol and
 * outputs: for tests/service/upgrade.sh. */
#include "base/version.h"

const char mode_version[] = "9.9.9";
