/* One request over one new connection, checked to the last byte. */
#ifndef GFBLAST_EXCHANGE_H
#define GFBLAST_EXCHANGE_H

#include "plan.h"

enum failure {
    FAIL_NONE, FAIL_CONNECT, FAIL_SEND, FAIL_TIMEOUT, FAIL_RESET, FAIL_EMPTY_REPLY, FAIL_BAD_HEADER,
    FAIL_STATUS, FAIL_LENGTH, FAIL_SHORT_BODY, FAIL_CONTENT, FAIL_EXCESS_BYTES, FAIL_COUNT
};

extern const char *const failure_names[FAIL_COUNT];

struct outcome {
    enum failure failure;
    struct reply reply;
    bool has_reply;
    uint64_t body_bytes;
    char note[96]; /* what a person wants to know about the failure */
};

uint64_t now_ns(void);

/* Ask for one target. `buffer` of `room` bytes is the caller's. Blocks at most about twice the plan's time limit. */
struct outcome exchange(const struct plan *plan, const struct target *target, char *buffer, size_t room);

#endif
