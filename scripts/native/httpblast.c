/*
 * httpblast: HTTP hits and misses over kept connections, drawn from a large set of objects.
 *
 * wrk's Lua takes as much of a processor as a fast server, and cannot tell a wrong body. Here each thread has one epoll
 * and its share of the connections; a connection has one request under way. Paths are /SET/BYTES/NUMBER, and a body is
 * its path and a newline, again and again (see origin.c), so that every reply can be checked without a list of objects.
 * A latency runs from the request to the last byte of its body. What is under way when the time is over is waited for,
 * and counts among the latencies, but not in the rate.
 *
 * cc -std=c11 -O2 -Wall -Wextra -pthread -o httpblast httpblast.c draw.c latencies.c reply.c -lm
 * `httpblast -h` lists the options.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "draw.h"
#include "latencies.h"
#include "reply.h"

#define PATH_BYTES_MAX 128
#define REQUEST_BYTES_MAX (PATH_BYTES_MAX + 64)
#define BUFFER_BYTES (256 * 1024)
#define EVENTS_MAX 64
#define TURN_MS 100
#define THREADS_MAX 64

static const char usage[] =
    "usage: httpblast -p PORT [options]\n"
    "  -p PORT   on 127.0.0.1                      -s SET    first part of the paths (set)\n"
    "  -b BYTES  of each object (100)              -k COUNT  number of objects (1)\n"
    "  -c N      connections (1)                   -t N      threads (1), at most one for each connection\n"
    "  -d S      seconds (1)                       -T S      limit for one request (10)\n"
    "  -z ALPHA  draw by Zipf's law; otherwise each object is as likely\n"
    "  -e FIRST  ask for each of COUNT objects once, from number FIRST on; ends early when all have been answered\n"
    "  -C        compare every byte of every body; otherwise its length and beginning\n"
    "JSON on stdout. Exit status: 0 every reply was right, 1 some were not, 2 usage.\n";

enum failure { CONNECT, CLOSED, HEADER, STATUS, LENGTH, CONTENT, TIMEOUT, FAILURE_COUNT };

static const char *const failure_names[] = {"connect", "closed", "header", "status", "length", "content", "timeout"};

static struct {
    int port, connections, threads;
    const char *set;
    uint64_t object_bytes, count, first;
    double seconds, limit_s, alpha;
    bool each_once, compares_all;
} options = {.connections = 1, .threads = 1, .set = "set", .object_bytes = 100, .count = 1, .seconds = 1, .limit_s = 10};

struct connection {
    int fd;
    bool asked, has_head, used; /* used: at least one reply came over it, so its end may be the server's right */
    char path[PATH_BYTES_MAX];  /* with a newline, as the body repeats it */
    size_t path_bytes, held_bytes;
    uint64_t begin_ns, body_bytes;
    char held[HEADER_BYTES_MAX]; /* the beginning of a head that is not whole yet */
};

struct thread {
    pthread_t id;
    int epoll, count, under_way;
    struct connection *connections;
    uint64_t random, requests, bytes, reconnects, failures[FAILURE_COUNT];
    struct latencies latencies;
    char *buffer, *pattern; /* the pattern is as long as the buffer and a path */
    char note[192];
};

static struct draw *draw;
static atomic_uint_fast64_t next;
static uint64_t start_ns, end_ns;
static pthread_barrier_t start_line;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *must(void *memory)
{
    if (memory)
        return memory;
    fputs("httpblast: out of memory\n", stderr);
    exit(2);
}

static void fail(struct thread *self, struct connection *with, enum failure failure, const char *detail)
{
    if (!self->note[0])
        snprintf(self->note, sizeof self->note, "%.*s: %s %.40s", (int)with->path_bytes - 1, with->path,
                 failure_names[failure], detail);
    self->failures[failure]++;
    self->under_way -= with->asked;
    with->asked = false;
    if (with->fd >= 0)
        close(with->fd);
    with->fd = -1;
}

static bool opened(struct thread *self, struct connection *it)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = it};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    it->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    it->used = false;
    if (it->fd < 0 || connect(it->fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        setsockopt(it->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        epoll_ctl(self->epoll, EPOLL_CTL_ADD, it->fd, &readable) != 0) {
        fail(self, it, CONNECT, strerror(errno));
        return false;
    }
    return true;
}

/* Send the request for the connection's path; a request is small enough for an empty socket. */
static void send_request(struct thread *self, struct connection *it)
{
    char request[REQUEST_BYTES_MAX];
    size_t count = (size_t)snprintf(request, sizeof request, "GET %.*s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
                                    (int)it->path_bytes - 1, it->path);
    it->has_head = false;
    it->held_bytes = it->body_bytes = 0;
    if (send(it->fd, request, count, MSG_NOSIGNAL) != (ssize_t)count && !it->used)
        fail(self, it, CLOSED, strerror(errno)); /* a used one shows its end when it is read */
}

/* Ask for the next object, if there is time and one is left. */
static void ask(struct thread *self, struct connection *it)
{
    uint64_t number, begin_ns = now_ns();
    if (begin_ns >= end_ns)
        return;
    if (options.each_once) {
        number = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed);
        if (number >= options.count)
            return;
        number += options.first;
    } else {
        number = draw_next(draw, &self->random);
    }
    it->path_bytes = (size_t)snprintf(it->path, sizeof it->path, "/%s/%" PRIu64 "/%" PRIu64 "\n", options.set,
                                      options.object_bytes, number);
    it->begin_ns = begin_ns;
    it->asked = true;
    self->under_way++;
    if (it->fd >= 0 || opened(self, it))
        send_request(self, it);
}

/* The server ended the connection. Before a reply on a used one that is its right: the request is sent again. */
static void ended(struct thread *self, struct connection *it)
{
    if (it->asked && !(it->used && !it->has_head && !it->held_bytes)) {
        fail(self, it, CLOSED, "");
        return;
    }
    close(it->fd);
    it->fd = -1;
    self->reconnects++;
    if (it->asked && opened(self, it))
        send_request(self, it);
}

/* Whether these bytes of the body are right. Without -C only the first piece is looked at, as far as the path goes. */
static bool is_right(struct thread *self, const struct connection *it, const char *bytes, size_t count)
{
    size_t offset = (size_t)(it->body_bytes % it->path_bytes);
    if (!options.compares_all)
        return it->body_bytes || memcmp(bytes, it->path, count < it->path_bytes ? count : it->path_bytes) == 0;
    for (size_t filled = 0; filled < offset + count; filled += it->path_bytes)
        memcpy(self->pattern + filled, it->path, it->path_bytes);
    return memcmp(bytes, self->pattern + offset, count) == 0;
}

static void take_body(struct thread *self, struct connection *it, const char *bytes, size_t count)
{
    if (it->body_bytes + count > options.object_bytes) {
        fail(self, it, LENGTH, "too long");
    } else if (count && !is_right(self, it, bytes, count)) {
        fail(self, it, CONTENT, "");
    } else if ((it->body_bytes += count) == options.object_bytes) {
        uint64_t end = now_ns();
        latencies_add(&self->latencies, end - it->begin_ns);
        if (end <= end_ns) {
            self->requests++;
            self->bytes += options.object_bytes;
        }
        it->asked = false;
        it->used = true;
        self->under_way--;
        ask(self, it);
    }
}

/* Read on in a head; what follows it is body. */
static void take_head(struct thread *self, struct connection *it, const char *bytes, size_t count)
{
    struct reply reply;
    size_t held = it->held_bytes;
    if (held) { /* the rare case: a head in pieces */
        size_t room = sizeof it->held - held, taken = count < room ? count : room;
        memcpy(it->held + held, bytes, taken);
    }
    enum parse step = held ? reply_parse_http(it->held, held + count < sizeof it->held ? held + count : sizeof it->held,
                                              &reply)
                           : reply_parse_http(bytes, count, &reply);
    if (step == PARSE_MORE && held + count < sizeof it->held) {
        if (!held)
            memcpy(it->held, bytes, count);
        it->held_bytes += count;
        return;
    }
    if (step != PARSE_DONE) {
        fail(self, it, HEADER, "");
    } else if (reply.status != STATUS_OK) {
        fail(self, it, STATUS, held ? it->held : bytes);
    } else if (reply.length != options.object_bytes) {
        fail(self, it, LENGTH, "as declared");
    } else {
        size_t skipped = reply.header_bytes - held;
        it->has_head = true;
        take_body(self, it, bytes + skipped, count - skipped);
    }
}

static void on_readable(struct thread *self, struct connection *it)
{
    ssize_t count = recv(it->fd, self->buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0)
        ended(self, it);
    else if (!it->asked)
        fail(self, it, LENGTH, "bytes that nobody asked for");
    else
        (it->has_head ? take_body : take_head)(self, it, self->buffer, (size_t)count);
}

static void give_up_the_late(struct thread *self)
{
    uint64_t limit_ns = (uint64_t)(options.limit_s * 1e9), now = now_ns();
    for (int each = 0; each < self->count; each++) {
        struct connection *it = &self->connections[each];
        if (it->asked && now > it->begin_ns + limit_ns)
            fail(self, it, TIMEOUT, "");
    }
}

static void *work(void *argument)
{
    struct thread *self = argument;
    struct epoll_event events[EVENTS_MAX];
    for (int each = 0; each < self->count; each++)
        opened(self, &self->connections[each]);
    pthread_barrier_wait(&start_line); /* all connections are there */
    pthread_barrier_wait(&start_line); /* the clock runs */
    for (int each = 0; each < self->count; each++)
        ask(self, &self->connections[each]);
    uint64_t look_ns = now_ns();
    while (self->under_way) {
        int count = epoll_wait(self->epoll, events, EVENTS_MAX, TURN_MS);
        for (int each = 0; each < count; each++)
            on_readable(self, events[each].data.ptr);
        if (now_ns() > look_ns + TURN_MS * UINT64_C(1000000)) {
            give_up_the_late(self);
            look_ns = now_ns();
        }
    }
    return NULL;
}

static struct thread *started_threads(void)
{
    struct thread *threads = must(calloc((size_t)options.threads, sizeof *threads));
    pthread_barrier_init(&start_line, NULL, (unsigned)options.threads + 1);
    for (int t = 0; t < options.threads; t++) {
        struct thread *self = &threads[t];
        self->count = options.connections / options.threads + (t < options.connections % options.threads);
        self->connections = must(calloc((size_t)self->count, sizeof *self->connections));
        for (int each = 0; each < self->count; each++)
            self->connections[each].path_bytes = 1;
        self->epoll = epoll_create1(EPOLL_CLOEXEC);
        self->random = now_ns() * 2 + 1 + (uint64_t)t * UINT64_C(0x9e3779b97f4a7c15);
        self->buffer = must(malloc(BUFFER_BYTES));
        self->pattern = must(malloc(BUFFER_BYTES + 2 * PATH_BYTES_MAX));
        if (self->epoll < 0 || pthread_create(&self->id, NULL, work, self) != 0) {
            fputs("httpblast: cannot start a thread\n", stderr);
            exit(2);
        }
    }
    pthread_barrier_wait(&start_line);
    start_ns = now_ns();
    end_ns = start_ns + (uint64_t)(options.seconds * 1e9);
    pthread_barrier_wait(&start_line);
    return threads;
}

/* Print the figures. True if every reply was right and there was one. */
static bool report(struct thread *threads, double seconds)
{
    struct rusage used;
    uint64_t requests = 0, bytes = 0, reconnects = 0, failures[FAILURE_COUNT] = {0}, failed = 0;
    const char *note = "", *comma = "";
    for (int t = 0; t < options.threads; t++) {
        requests += threads[t].requests;
        bytes += threads[t].bytes;
        reconnects += threads[t].reconnects;
        for (int n = 0; n < FAILURE_COUNT; n++)
            failed += threads[t].failures[n], failures[n] += threads[t].failures[n];
        if (t)
            latencies_merge(&threads[0].latencies, &threads[t].latencies);
        if (!note[0])
            note = threads[t].note;
    }
    const struct latencies *all = &threads[0].latencies;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.6f", requests,
           all->count, bytes, seconds);
    printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f", latencies_percentile_us(all, 0.5),
           latencies_percentile_us(all, 0.99), (double)all->max_ns / 1e3);
    printf(",\"client_cpu_s\":%.6f,\"reconnects\":%" PRIu64 ",\"failures\":{", cpu_s, reconnects);
    for (int n = 0; n < FAILURE_COUNT; n++)
        if (failures[n])
            printf("%s\"%s\":%" PRIu64, comma, failure_names[n], failures[n]), comma = ",";
    fputs("},\"first_failure\":\"", stdout);
    for (; *note; note++)
        putchar(*note < ' ' || *note == '"' || *note == '\\' ? '?' : *note);
    puts("\"}");
    return all->count > 0 && !failed;
}

static double number(char option, const char *text, double low, double high)
{
    char *rest;
    double value = strtod(text, &rest);
    if (rest == text || *rest || !(value >= low && value <= high)) {
        fprintf(stderr, "httpblast: -%c must be a number from %g to %g, not '%s'\n", option, low, high, text);
        exit(2);
    }
    return value;
}

static void read_options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "p:s:b:k:c:t:d:T:z:e:Ch")) != -1) {
        switch (option) {
        case 'p': options.port = (int)number('p', optarg, 1, 65535); break;
        case 's': options.set = optarg; break;
        case 'b': options.object_bytes = (uint64_t)number('b', optarg, 1, 1e12); break;
        case 'k': options.count = (uint64_t)number('k', optarg, 1, 1e12); break;
        case 'c': options.connections = (int)number('c', optarg, 1, 10000); break;
        case 't': options.threads = (int)number('t', optarg, 1, THREADS_MAX); break;
        case 'd': options.seconds = number('d', optarg, 0.001, 1e6); break;
        case 'T': options.limit_s = number('T', optarg, 0.001, 1e6); break;
        case 'z': options.alpha = number('z', optarg, 0.01, 10); break;
        case 'e': options.each_once = true, options.first = (uint64_t)number('e', optarg, 0, 1e12); break;
        case 'C': options.compares_all = true; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (!options.port || optind != argc || strlen(options.set) > 64) {
        fputs(usage, stderr);
        exit(2);
    }
    if (options.threads > options.connections)
        options.threads = options.connections;
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    if (!options.each_once)
        draw = must(draw_made(options.count, options.alpha));
    struct thread *threads = started_threads();
    for (int t = 0; t < options.threads; t++)
        pthread_join(threads[t].id, NULL);
    uint64_t over_ns = now_ns();
    return report(threads, (double)((over_ns < end_ns ? over_ns : end_ns) - start_ns) / 1e9) ? 0 : 1;
}
