/* One request over one new connection; see exchange.h. */
#define _GNU_SOURCE
#include "exchange.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

const char *const failure_names[FAIL_COUNT] = {
    "none", "connect", "send", "timeout", "reset", "empty_reply", "bad_header",
    "status", "length", "short_body", "content", "excess_bytes"};

struct body {
    const struct target *target;
    uint64_t declared, received;
};

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum failure from_errno(enum failure otherwise)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINPROGRESS || errno == ETIMEDOUT)
        return FAIL_TIMEOUT;
    return errno == ECONNRESET || errno == EPIPE ? FAIL_RESET : otherwise;
}

static ssize_t receive(int fd, char *into, size_t room, int flags)
{
    ssize_t count;
    do
        count = recv(fd, into, room, flags);
    while (count < 0 && errno == EINTR);
    return count;
}

static int connected(const struct plan *plan)
{
    struct timeval limit = {plan->timeout_ms / 1000, plan->timeout_ms % 1000 * 1000};
    int on = 1, fd = socket(plan->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)&plan->address, plan->address_bytes) == 0)
        return fd;
    int problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

static enum failure ask(int fd, const struct plan *plan, const char *path)
{
    static const char getfile[] = "GETFILE GET %s\r\n\r\n";
    static const char http[] = "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    char request[4096 + sizeof http];
    size_t count = (size_t)snprintf(request, sizeof request, plan->http ? http : getfile, path), sent = 0;
    while (sent < count) {
        ssize_t step = send(fd, request + sent, count - sent, MSG_NOSIGNAL);
        if (step < 0 && errno != EINTR)
            return from_errno(FAIL_SEND);
        sent += step > 0 ? (size_t)step : 0;
    }
    return FAIL_NONE;
}

/* Count and compare what came of the body. */
static enum failure take(struct body *body, const char *bytes, size_t count, struct outcome *out)
{
    size_t wanted = count;
    if (wanted > body->declared - body->received)
        wanted = (size_t)(body->declared - body->received);
    if (body->target->reference && memcmp(bytes, body->target->reference + body->received, wanted) != 0) {
        size_t same = 0;
        while (bytes[same] == body->target->reference[body->received + same])
            same++;
        snprintf(out->note, sizeof out->note, "byte %llu differs", (unsigned long long)(body->received + same));
        return FAIL_CONTENT;
    }
    body->received += wanted;
    if (count == wanted)
        return FAIL_NONE;
    snprintf(out->note, sizeof out->note, "%zu bytes too many", count - wanted);
    return FAIL_EXCESS_BYTES;
}

static enum failure receive_header(int fd, const struct plan *plan, char *buffer, size_t room, size_t *have,
                                   struct outcome *out)
{
    const uint64_t limit_ns = now_ns() + (uint64_t)plan->timeout_ms * 1000000u;
    for (*have = 0;;) {
        ssize_t count = receive(fd, buffer + *have, room - *have, 0);
        if (count < 0)
            return from_errno(FAIL_RESET);
        if (count == 0)
            return *have ? FAIL_BAD_HEADER : FAIL_EMPTY_REPLY;
        *have += (size_t)count;
        enum parse step = (plan->http ? reply_parse_http : reply_parse_getfile)(buffer, *have, &out->reply);
        out->has_reply = step == PARSE_DONE;
        if (step == PARSE_DONE)
            return FAIL_NONE;
        if (step == PARSE_BAD || *have >= HEADER_BYTES_MAX)
            return FAIL_BAD_HEADER;
        if (now_ns() > limit_ns)
            return FAIL_TIMEOUT;
    }
}

static enum failure judge(const struct target *target, struct outcome *out)
{
    if (out->reply.status != target->expected) {
        snprintf(out->note, sizeof out->note, "%s, not %s", status_names[out->reply.status],
                 status_names[target->expected]);
        return FAIL_STATUS;
    }
    if (target->reference && out->reply.length != target->reference_bytes) {
        snprintf(out->note, sizeof out->note, "declared %llu bytes, not %llu", (unsigned long long)out->reply.length,
                 (unsigned long long)target->reference_bytes);
        return FAIL_LENGTH;
    }
    return FAIL_NONE;
}

static enum failure converse(int fd, const struct plan *plan, const struct target *target, char *buffer, size_t room,
                             struct outcome *out)
{
    const uint64_t limit_ns = now_ns() + (uint64_t)plan->timeout_ms * 1000000u;
    size_t have;
    enum failure failure = ask(fd, plan, target->path);
    if (failure || (failure = receive_header(fd, plan, buffer, room, &have, out)) || (failure = judge(target, out)))
        return failure;
    bool has_body = !plan->http || out->reply.status == STATUS_OK; /* an HTTP refusal brings a page of its own */
    struct body body = {target, out->reply.length, 0};
    if (has_body)
        failure = take(&body, buffer + out->reply.header_bytes, have - out->reply.header_bytes, out);
    while (!failure && body.received < body.declared) {
        ssize_t count = receive(fd, buffer, room, 0);
        if (count > 0)
            failure = take(&body, buffer, (size_t)count, out);
        else
            failure = count < 0 ? from_errno(FAIL_RESET) : FAIL_SHORT_BODY;
        if (!failure && body.received < body.declared && now_ns() > limit_ns)
            failure = FAIL_TIMEOUT;
    }
    out->body_bytes = body.received;
    if (failure == FAIL_SHORT_BODY || failure == FAIL_TIMEOUT || failure == FAIL_RESET)
        snprintf(out->note, sizeof out->note, "after %llu of %llu bytes", (unsigned long long)body.received,
                 (unsigned long long)body.declared);
    if (!failure && has_body && receive(fd, buffer, room, MSG_DONTWAIT) > 0)
        failure = FAIL_EXCESS_BYTES;
    return failure;
}

struct outcome exchange(const struct plan *plan, const struct target *target, char *buffer, size_t room)
{
    struct outcome out = {.failure = FAIL_NONE};
    int fd = connected(plan);
    if (fd < 0) {
        out.failure = errno == EAGAIN || errno == EINPROGRESS || errno == ETIMEDOUT ? FAIL_TIMEOUT : FAIL_CONNECT;
        snprintf(out.note, sizeof out.note, "%s", strerror(errno));
        return out;
    }
    out.failure = converse(fd, plan, target, buffer, room, &out);
    close(fd);
    return out;
}
