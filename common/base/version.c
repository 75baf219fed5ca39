#include "base/version.h"

const char mode_version[] = "0.1.0";
