/* version.h - version of this package, for people, in logs and `mode status`. Nothing depends on it: compatibility is
 * decided by the protocol version (msg/envelope.h) and the code versions of the services' outputs
 * (msg/code_version.h). */
#ifndef MODE_BASE_VERSION_H
#define MODE_BASE_VERSION_H

extern const char mode_version[];

#endif
