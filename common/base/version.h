/* version.h - what this package calls itself: for people, in logs and `mode status`. Nothing is decided by it: what goes
 * with what is said by the protocol's number (msg/envelope.h) and those of the services' outputs (msg/code_version.h). */
#ifndef MODE_BASE_VERSION_H
#define MODE_BASE_VERSION_H

extern const char mode_version[];

#endif
