/* version.h - what this build calls itself; stored with everything it makes. */
#ifndef MODE_BASE_VERSION_H
#define MODE_BASE_VERSION_H

#define MODE_VERSION "0.1.0"

#endif
