/* What is to be asked: the command line to groups of paths with their reference bytes. */
#ifndef GFBLAST_PLAN_H
#define GFBLAST_PLAN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "reply.h"

enum amount { AMOUNT_REQUESTS, AMOUNT_SECONDS, AMOUNT_WHILE };

struct target {
    const char *path;
    enum status expected;
    const char *reference; /* mapped bytes to compare with, or NULL: only the length is checked */
    uint64_t reference_bytes;
};

struct group {
    const char *name;
    int threads;
    enum amount amount;
    uint64_t requests; /* in all, for AMOUNT_REQUESTS */
    double seconds;    /* for AMOUNT_SECONDS */
    struct target *targets;
    size_t target_count;
};

struct plan {
    struct sockaddr_storage address;
    socklen_t address_bytes;
    bool http;
    int timeout_ms; /* for one whole request */
    struct group *groups;
    size_t group_count;
};

/* Read the command line. Ends the process with status 2 and a message when it cannot be carried out. */
struct plan plan_from_arguments(int argc, char **argv);

#endif
