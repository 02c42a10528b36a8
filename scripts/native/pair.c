/*
 * pair: the textbook cache and proxy in C, with nothing but the hot path. A yardstick for benchmarks, not a base.
 *
 *     pair cache -q QUEUE -c ROOT -t THREADS
 *     pair proxy -q QUEUE -p PORT -n SEGMENTS -z BYTES -t THREADS
 *
 * Both are a boss and its workers. The proxy's boss accepts a connection, and a worker reads the getfile request,
 * leases one segment, sends a command and passes every chunk on to the client. The cache's boss receives the command,
 * and a worker reads the file into the segment, chunk by chunk:
 *
 *     cache                                   proxy
 *     wait space_available                    wait data_available
 *     read a chunk into the segment           send it from the segment
 *     post data_available                     post space_available       ... until the chunk that is marked as last
 *
 * Between two posts the header and the chunk belong to one side alone, so neither needs atomic access. After the last
 * chunk space_available is 1 again: a segment comes back as it was leased.
 *
 * Left out: deadlines, checks of what the other side wrote, recovery after `kill -9` (the names stay and must be
 * removed by hand, and a proxy waits for a dead cache for ever), draining at the end, HTTP, misses, folders below ROOT,
 * files that change. A cache serves one proxy. It listens on 127.0.0.1, all names have mode 0600, and SIGTERM removes
 * them.
 *
 * cc -std=c11 -O2 -Wall -Wextra -pthread -o pair pair.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mqueue.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES 512
#define SEGMENTS_MAX 256
#define THREADS_MAX 256
#define JOBS_MAX 1024
#define PATH_BYTES_MAX 4096
#define QUEUE_NAME_BYTES_MAX 200
#define QUEUED_COMMANDS_MAX 10
#define STACK_BYTES (256 * 1024)

static const char request_begin[] = "GETFILE GET ", request_end[] = "\r\n\r\n";

enum chunk_kind { CHUNK_MORE, CHUNK_LAST, CHUNK_MISSING, CHUNK_FAILED };

struct segment { /* at the start of the shared memory */
    _Alignas(64) sem_t data_available;
    _Alignas(64) sem_t space_available;
    _Alignas(64) uint64_t kind; /* this line is written by the cache, before it posts data_available */
    uint64_t object_bytes, chunk_bytes;
    _Alignas(HEADER_BYTES) char chunk[]; /* to the end of the memory */
};

struct command { /* from the proxy to the cache; sent without the unused rest of the path */
    uint32_t segment; /* its name is that of the queue with this number */
    char path[PATH_BYTES_MAX + 1];
};

struct crew { /* a boss puts jobs in, workers take them out in order; full, it makes the boss wait */
    pthread_mutex_t lock;
    pthread_cond_t filled, drained;
    void *jobs[JOBS_MAX];
    size_t first, count;
    void (*work)(void *job);
};

struct file {
    char *path; /* as in a request */
    int fd;
    uint64_t bytes;
};

static struct options {
    const char *queue, *root;
    int port, segments, threads;
    size_t segment_bytes;
} options = {.segments = 8, .threads = 8, .segment_bytes = 262144};

static struct crew crew = {.lock = PTHREAD_MUTEX_INITIALIZER,
                           .filled = PTHREAD_COND_INITIALIZER,
                           .drained = PTHREAD_COND_INITIALIZER};
static mqd_t queue = (mqd_t)-1;
static bool owns_queue;
static int owned_segments; /* as many segments, from number 0, were created by this process */

/* The end of the process: removes the names it created. */

static const char *segment_name(char *name, uint32_t number)
{
    sprintf(name, "%s.%" PRIu32, options.queue, number);
    return name;
}

static _Noreturn void finish(int status)
{
    char name[QUEUE_NAME_BYTES_MAX + 16];
    if (owns_queue)
        mq_unlink(options.queue);
    while (owned_segments > 0)
        shm_unlink(segment_name(name, (uint32_t)--owned_segments));
    _exit(status);
}

static _Noreturn void fail(const char *what, ...)
{
    int problem = errno;
    va_list arguments;
    va_start(arguments, what);
    fputs("pair: ", stderr);
    vfprintf(stderr, what, arguments);
    fprintf(stderr, ": %s\n", strerror(problem));
    finish(1);
}

/* Boss and workers. */

static void put_job(void *job)
{
    pthread_mutex_lock(&crew.lock);
    while (crew.count == JOBS_MAX)
        pthread_cond_wait(&crew.drained, &crew.lock);
    crew.jobs[(crew.first + crew.count++) % JOBS_MAX] = job;
    pthread_cond_signal(&crew.filled);
    pthread_mutex_unlock(&crew.lock);
}

static void *take_job(void)
{
    pthread_mutex_lock(&crew.lock);
    while (crew.count == 0)
        pthread_cond_wait(&crew.filled, &crew.lock);
    void *job = crew.jobs[crew.first];
    crew.first = (crew.first + 1) % JOBS_MAX;
    if (crew.count-- == JOBS_MAX)
        pthread_cond_signal(&crew.drained);
    pthread_mutex_unlock(&crew.lock);
    return job;
}

static void *worker(void *unused)
{
    (void)unused;
    while (true)
        crew.work(take_job());
    return NULL;
}

static void start_thread(void *(*run)(void *), void *argument)
{
    pthread_t id;
    pthread_attr_t small_stack;
    pthread_attr_init(&small_stack);
    pthread_attr_setstacksize(&small_stack, STACK_BYTES);
    errno = pthread_create(&id, &small_stack, run, argument);
    if (errno)
        fail("cannot start a thread");
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) /* EINTR */
        ;
}

/* The cache. */

static struct file *files;
static size_t file_count;
static struct segment *attached[SEGMENTS_MAX]; /* filled under the lock; an entry never changes */
static size_t chunk_room;                      /* the same for all segments of the proxy */
static pthread_mutex_t attach_lock = PTHREAD_MUTEX_INITIALIZER;

static int by_path(const void *left, const void *right)
{
    return strcmp(((const struct file *)left)->path, ((const struct file *)right)->path);
}

/* Open every plain file of ROOT. Nothing is opened later, so a path in a command cannot lead out of it. */
static void open_files(void)
{
    struct stat facts;
    struct dirent *entry;
    DIR *root = opendir(options.root);
    if (!root)
        fail("%s", options.root);
    while ((entry = readdir(root))) {
        int fd = openat(dirfd(root), entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &facts) != 0)
            fail("%s/%s", options.root, entry->d_name);
        if (!S_ISREG(facts.st_mode)) {
            close(fd);
            continue;
        }
        struct file file = {.fd = fd, .bytes = (uint64_t)facts.st_size};
        files = reallocarray(files, file_count + 1, sizeof *files);
        if (!files || asprintf(&file.path, "/%s", entry->d_name) < 0)
            fail("%s", options.root);
        files[file_count++] = file;
    }
    closedir(root);
    if (file_count)
        qsort(files, file_count, sizeof *files, by_path);
}

static struct segment *segment_of(uint32_t number)
{
    pthread_mutex_lock(&attach_lock);
    if (!attached[number]) {
        char name[QUEUE_NAME_BYTES_MAX + 16];
        struct stat facts;
        int fd = shm_open(segment_name(name, number), O_RDWR, 0);
        if (fd < 0 || fstat(fd, &facts) != 0)
            fail("segment %s", name);
        void *memory = mmap(NULL, (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
            fail("segment %s", name);
        close(fd);
        chunk_room = (size_t)facts.st_size - HEADER_BYTES;
        attached[number] = memory;
    }
    struct segment *segment = attached[number];
    pthread_mutex_unlock(&attach_lock);
    return segment;
}

static void answer_command(void *job)
{
    struct command *command = job;
    struct segment *segment = segment_of(command->segment);
    struct file wanted = {.path = command->path};
    const struct file *file = file_count ? bsearch(&wanted, files, file_count, sizeof *files, by_path) : NULL;
    free(command);
    uint64_t offset = 0;
    enum chunk_kind kind;
    do {
        wait_for(&segment->space_available);
        ssize_t count = file ? pread(file->fd, segment->chunk, chunk_room, (off_t)offset) : 0;
        if (!file)
            kind = CHUNK_MISSING;
        else if (count < 0 || (count == 0 && offset < file->bytes))
            kind = CHUNK_FAILED;
        else
            kind = (offset += (uint64_t)count) < file->bytes ? CHUNK_MORE : CHUNK_LAST;
        segment->kind = kind;
        segment->object_bytes = file ? file->bytes : 0;
        segment->chunk_bytes = count > 0 ? (uint64_t)count : 0;
        sem_post(&segment->data_available);
    } while (kind == CHUNK_MORE);
}

static void *cache_boss(void *unused)
{
    (void)unused;
    for (;;) {
        struct command *command = malloc(sizeof *command);
        if (!command)
            fail("a command");
        while (mq_receive(queue, (char *)command, sizeof *command, NULL) < 0)
            if (errno != EINTR)
                fail("queue %s", options.queue);
        put_job(command);
    }
}

static void open_cache(void)
{
    struct mq_attr limits = {.mq_maxmsg = QUEUED_COMMANDS_MAX, .mq_msgsize = sizeof(struct command)};
    open_files();
    queue = mq_open(options.queue, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &limits);
    if (queue == (mqd_t)-1)
        fail("queue %s", options.queue);
    owns_queue = true;
    crew.work = answer_command;
}

/* The proxy. */

static struct segment *segments[SEGMENTS_MAX];
static struct { /* the numbers of the segments that are not leased, the last used on top */
    pthread_mutex_t lock;
    pthread_cond_t given_back;
    uint32_t numbers[SEGMENTS_MAX];
    int count;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .given_back = PTHREAD_COND_INITIALIZER};
static int listener;

static uint32_t lease(void)
{
    pthread_mutex_lock(&pool.lock);
    while (pool.count == 0)
        pthread_cond_wait(&pool.given_back, &pool.lock);
    uint32_t number = pool.numbers[--pool.count];
    pthread_mutex_unlock(&pool.lock);
    return number;
}

static void give_back(uint32_t number)
{
    pthread_mutex_lock(&pool.lock);
    pool.numbers[pool.count++] = number;
    pthread_cond_signal(&pool.given_back);
    pthread_mutex_unlock(&pool.lock);
}

/* Send the header, if there is one, and the chunk in as few calls as possible. False if the client is gone. */
static bool send_all(int client, const char *header, size_t header_bytes, const char *chunk, size_t chunk_bytes)
{
    struct iovec parts[] = {{(void *)header, header_bytes}, {(void *)chunk, chunk_bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t sent = sendmsg(client, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return false;
        for (int part = 0; part < 2 && sent > 0; part++) {
            size_t step = (size_t)sent < parts[part].iov_len ? (size_t)sent : parts[part].iov_len;
            parts[part].iov_base = (char *)parts[part].iov_base + step;
            parts[part].iov_len -= step;
            sent -= (ssize_t)step;
        }
    }
    return true;
}

static void refuse(int client, const char *status)
{
    char header[64];
    send_all(client, header, (size_t)sprintf(header, "GETFILE %s%s", status, request_end), NULL, 0);
}

/* Read the whole request and find its path in it. False if it is none. */
static bool read_request(int client, char path[PATH_BYTES_MAX + 1])
{
    const size_t begin = sizeof request_begin - 1, end = sizeof request_end - 1;
    char request[sizeof request_begin + PATH_BYTES_MAX + sizeof request_end];
    size_t have = 0;
    do {
        ssize_t count = recv(client, request + have, sizeof request - have, 0);
        if (count <= 0)
            return false;
        have += (size_t)count;
    } while (have < sizeof request && (have < end || memcmp(request + have - end, request_end, end) != 0));
    size_t path_bytes = have - begin - end;
    if (have <= begin + end || path_bytes > PATH_BYTES_MAX || memcmp(request, request_begin, begin) != 0 ||
        memcmp(request + have - end, request_end, end) != 0 || memchr(request + begin, ' ', path_bytes))
        return false;
    memcpy(path, request + begin, path_bytes);
    path[path_bytes] = 0;
    return path[0] == '/';
}

/* Pass the object on. A client that leaves does not end this: the cache must come to its last chunk. */
static void transfer(int client, struct segment *segment)
{
    char header[64];
    bool is_first = true, client_left = false;
    enum chunk_kind kind;
    do {
        size_t header_bytes = 0;
        wait_for(&segment->data_available);
        kind = (enum chunk_kind)segment->kind;
        if (is_first && (kind == CHUNK_MISSING || kind == CHUNK_FAILED))
            refuse(client, kind == CHUNK_MISSING ? "FILE_NOT_FOUND" : "ERROR");
        else if (!client_left) {
            if (is_first)
                header_bytes =
                    (size_t)sprintf(header, "GETFILE OK %" PRIu64 "%s", segment->object_bytes, request_end);
            client_left = !send_all(client, header, header_bytes, segment->chunk, segment->chunk_bytes);
        }
        is_first = false;
        sem_post(&segment->space_available);
    } while (kind == CHUNK_MORE);
}

static void serve_client(void *job)
{
    int client = (int)(intptr_t)job;
    struct command command;
    if (read_request(client, command.path)) {
        size_t bytes = offsetof(struct command, path) + strlen(command.path) + 1;
        command.segment = lease();
        while (mq_send(queue, (const char *)&command, bytes, 0) != 0)
            if (errno != EINTR)
                fail("queue %s", options.queue);
        transfer(client, segments[command.segment]);
        give_back(command.segment);
    } else
        refuse(client, "INVALID");
    close(client);
}

static void *proxy_boss(void *unused)
{
    (void)unused;
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0)
            put_job((void *)(intptr_t)client);
        else if (errno != EINTR && errno != ECONNABORTED)
            fail("accept");
    }
}

static void create_segment(uint32_t number)
{
    char name[QUEUE_NAME_BYTES_MAX + 16];
    int fd = shm_open(segment_name(name, number), O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        fail("segment %s", name);
    owned_segments++;
    errno = posix_fallocate(fd, 0, (off_t)options.segment_bytes); /* a full /dev/shm is an error here, SIGBUS later */
    if (errno)
        fail("segment %s", name);
    struct segment *segment = mmap(NULL, options.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (segment == MAP_FAILED)
        fail("segment %s", name);
    close(fd);
    sem_init(&segment->data_available, 1, 0);
    sem_init(&segment->space_available, 1, 1);
    segments[number] = segment;
    give_back(number);
}

static void open_proxy(void)
{
    struct sockaddr_in place = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)options.port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t place_bytes = sizeof place;
    int on = 1;
    queue = mq_open(options.queue, O_WRONLY | O_CLOEXEC);
    if (queue == (mqd_t)-1)
        fail("queue %s (start `pair cache` first)", options.queue);
    for (int number = 0; number < options.segments; number++)
        create_segment((uint32_t)number);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit it */
    if (bind(listener, (struct sockaddr *)&place, sizeof place) != 0 || listen(listener, 1024) != 0 ||
        getsockname(listener, (struct sockaddr *)&place, &place_bytes) != 0)
        fail("port %d", options.port);
    options.port = ntohs(place.sin_port);
    crew.work = serve_client;
}

/* The command line. */

static _Noreturn void usage(void)
{
    fputs("usage: pair cache -q QUEUE -c ROOT [-t THREADS]\n"
          "       pair proxy -q QUEUE -p PORT [-n SEGMENTS] [-z BYTES] [-t THREADS]\n",
          stderr);
    exit(2);
}

static long number_within(const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high) {
        fprintf(stderr, "pair: %s is not a number from %ld to %ld\n", text, low, high);
        usage();
    }
    return value;
}

static void read_options(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "q:c:p:n:z:t:")) != -1;)
        switch (option) {
        case 'q': options.queue = optarg; break;
        case 'c': options.root = optarg; break;
        case 'p': options.port = (int)number_within(optarg, 0, 65535); break;
        case 'n': options.segments = (int)number_within(optarg, 1, SEGMENTS_MAX); break;
        case 'z': options.segment_bytes = (size_t)number_within(optarg, HEADER_BYTES + 1, 1L << 30); break;
        case 't': options.threads = (int)number_within(optarg, 1, THREADS_MAX); break;
        default: usage();
        }
    if (optind != argc || !options.queue || options.queue[0] != '/' || strlen(options.queue) > QUEUE_NAME_BYTES_MAX)
        usage();
}

int main(int argc, char **argv)
{
    bool is_cache = argc > 1 && strcmp(argv[1], "cache") == 0;
    if (!is_cache && !(argc > 1 && strcmp(argv[1], "proxy") == 0))
        usage();
    read_options(argc - 1, argv + 1);
    if (is_cache && !options.root)
        usage();
    sigset_t ending; /* blocked before the first name exists, in all threads: only sigwait() below sees them */
    int number;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
    is_cache ? open_cache() : open_proxy();
    for (int thread = 0; thread < options.threads; thread++)
        start_thread(worker, NULL);
    start_thread(is_cache ? cache_boss : proxy_boss, NULL);
    is_cache ? fputs("ready\n", stderr) : fprintf(stderr, "listening port=%d\n", options.port);
    sigwait(&ending, &number);
    finish(0);
}
