/*
 * origin: answers /SET/BYTES/NUMBER with a body of BYTES bytes, at once, so that it is never what is measured.
 *
 * A body is the path and a newline, again and again. Responses are fresh for a day and have a validator. The number of
 * objects it was asked for is the body of /requests. One thread, one epoll, kept connections; on 127.0.0.1.
 *
 * cc -std=c11 -O2 -Wall -Wextra -pthread -o origin origin.c
 * `origin` prints `listening port=N`, and ends by a signal.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_BYTES_MAX 8192
#define PATH_BYTES_MAX 128
#define HEAD_BYTES_MAX 512
#define PIECE_BYTES (256 * 1024)
#define EVENTS_MAX 64
#define BODY_BYTES_MAX 1e12

struct connection {
    int fd;
    size_t have;
    char request[REQUEST_BYTES_MAX];
    char path[PATH_BYTES_MAX]; /* with a newline; what the body repeats */
    size_t path_bytes;
    char head[HEAD_BYTES_MAX];
    size_t head_bytes, head_sent;
    uint64_t body_bytes, body_sent;
    bool waits; /* for room in the socket */
};

static uint64_t requests;
static int queue;

static const char *date(void)
{
    static char text[64];
    static time_t second;
    time_t now = time(NULL);
    if (now != second) {
        struct tm utc;
        second = now;
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &utc));
    }
    return text;
}

static void drop(struct connection *it)
{
    close(it->fd);
    free(it);
}

/* Prepare the response to the path in `it`. False: it names no object. */
static bool answer(struct connection *it)
{
    char digits[24], *rest, *bytes_at = memchr(it->path + 1, '/', it->path_bytes - 1);
    it->head_sent = 0;
    it->body_sent = 0;
    if (strcmp(it->path, "/requests\n") == 0) {
        it->path_bytes = it->body_bytes = (uint64_t)sprintf(digits, "%" PRIu64, requests);
        memcpy(it->path, digits, it->path_bytes);
        it->head_bytes = (size_t)snprintf(it->head, sizeof it->head,
                                          "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %" PRIu64
                                          "\r\n\r\n",
                                          it->body_bytes);
        return true;
    }
    double bytes = bytes_at ? strtod(bytes_at + 1, &rest) : -1;
    if (!(bytes >= 0 && bytes <= BODY_BYTES_MAX) || *rest != '/')
        return false;
    requests++;
    it->body_bytes = (uint64_t)bytes;
    it->head_bytes = (size_t)snprintf(it->head, sizeof it->head,
                                      "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: %s\r\n"
                                      "Content-Type: application/octet-stream\r\nContent-Length: %" PRIu64 "\r\n"
                                      "ETag: \"%.*s\"\r\nCache-Control: max-age=86400\r\n\r\n",
                                      date(), it->body_bytes, (int)it->path_bytes - 2, it->path + 1);
    return it->head_bytes < sizeof it->head;
}

/* Send what is left of the response. False: the connection is over. */
static bool deliver(struct connection *it)
{
    static char piece[PIECE_BYTES + 2 * PATH_BYTES_MAX];
    while (it->head_sent < it->head_bytes || it->body_sent < it->body_bytes) {
        uint64_t left = it->body_bytes - it->body_sent;
        size_t offset = (size_t)(it->body_sent % it->path_bytes), count = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        for (size_t filled = 0; filled < offset + count; filled += it->path_bytes)
            memcpy(piece + filled, it->path, it->path_bytes);
        struct iovec parts[] = {{it->head + it->head_sent, it->head_bytes - it->head_sent}, {piece + offset, count}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t sent = sendmsg(it->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (sent < 0) {
            struct epoll_event writable = {.events = EPOLLOUT, .data.ptr = it};
            it->waits = true;
            return epoll_ctl(queue, EPOLL_CTL_MOD, it->fd, &writable) == 0;
        }
        size_t of_head = (size_t)sent < parts[0].iov_len ? (size_t)sent : parts[0].iov_len;
        it->head_sent += of_head;
        it->body_sent += (size_t)sent - of_head;
    }
    if (it->waits) {
        struct epoll_event readable = {.events = EPOLLIN, .data.ptr = it};
        it->waits = false;
        return epoll_ctl(queue, EPOLL_CTL_MOD, it->fd, &readable) == 0;
    }
    return true;
}

/* Answer the requests that are in the buffer, as long as the socket takes them. False: the connection is over. */
static bool serve(struct connection *it)
{
    char *end;
    while (!it->waits && (end = memmem(it->request, it->have, "\r\n\r\n", 4))) {
        char *blank = it->have > 4 && memcmp(it->request, "GET ", 4) == 0 ? memchr(it->request + 4, ' ', it->have - 4) : NULL;
        size_t used = (size_t)(end - it->request) + 4, length = blank ? (size_t)(blank - it->request) - 4 : 0;
        if (!length || length > PATH_BYTES_MAX - 2)
            return false;
        memcpy(it->path, it->request + 4, length);
        it->path[length] = '\n';
        it->path[length + 1] = 0;
        it->path_bytes = length + 1;
        memmove(it->request, it->request + used, it->have -= used);
        if (!answer(it) || !deliver(it))
            return false;
    }
    return it->have < sizeof it->request;
}

static void on_event(struct connection *it)
{
    if (it->waits) {
        if (!deliver(it) || !serve(it))
            drop(it);
        return;
    }
    ssize_t count = recv(it->fd, it->request + it->have, sizeof it->request - it->have, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        drop(it);
        return;
    }
    it->have += (size_t)count;
    if (!serve(it))
        drop(it);
}

static void accept_one(int listener)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct connection *it = fd < 0 ? NULL : calloc(1, sizeof *it);
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = it};
    if (!it) {
        if (fd >= 0)
            close(fd);
        return;
    }
    it->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &readable) != 0)
        drop(it);
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t at_bytes = sizeof at;
    struct epoll_event events[EVENTS_MAX], readable = {.events = EPOLLIN};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    queue = epoll_create1(EPOLL_CLOEXEC);
    if (listener < 0 || queue < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(listener, 1024) != 0 || getsockname(listener, (struct sockaddr *)&at, &at_bytes) != 0 ||
        epoll_ctl(queue, EPOLL_CTL_ADD, listener, &readable) != 0) {
        perror("origin");
        return 2;
    }
    printf("listening port=%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(queue, events, EVENTS_MAX, -1);
        for (int each = 0; each < count; each++) {
            if (events[each].data.ptr)
                on_event(events[each].data.ptr);
            else
                accept_one(listener);
        }
    }
}
