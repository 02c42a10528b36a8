/* webproxy.serving.native_hits: the loop from a recognised request to the sent reply, compiled.
 *
 * Theory of operation. The Python of fast_path.py, http1_server.py, parking.py and acceptor.py answers every request, and
 * tells this loop what it has learned: the target of a request with the reply to it (a Reply), and the rest of the
 * request, from the space behind the target on (a Block). A request that is byte for byte a known target and a known
 * rest is answered here, as those modules would; everything else is handed to them with the bytes received.
 *
 *   serve():  receive ──known──▶ sent whole ──▶ the next idle connection that is ready, or the same one again
 *                └─ unknown, nothing, the end, an error, a part sent ──▶ returned with its connection
 *   accept(): accept ──▶ receive ──known, and the client closes──▶ sent whole, counted, closed ──▶ the next one
 *                └─ anything else ──▶ returned with what was received
 *
 * Invariants. A reply is sent only while its object is in the hot table as it was learned: the body is copied, or its
 * file opened, between two looks at the cell's sequence number, as in hot_table_reader.py. A connection is where it would be without this
 * loop, with the same counts. The GIL is held but for the moments in which a worker stays for the next request, sends a
 * large file or waits for a disk, and no other thread sees a connection between two places. No pointer into Python's memory outlives a call.
 *
 * The attributes of connections are reached by the offsets of their slots, which the members' descriptors have.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RECEIVE_BYTES 8192
#define BODY_BYTES_MAX 16384
#define LINES_BYTES_MAX 4095 /* what a pipe takes whole (pipe(7)), but for the end of a torn line */
#define IN_A_ROW_MAX 64      /* as REQUESTS_IN_A_ROW in http1_server.py */
#define STAY_MS 20
#define MARK_AGAIN_NS 250000000
#define BLOCKS_MAX 1024
#define GENERATION_BYTES_MAX (8 << 20)
#define ENTRY_BYTES 512 /* of a target's objects, but for the bytes that it brings */
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#define REPLY_LOG_PARTS 3
#define BLOCK_LOG_PARTS 2
#define SUB_BITS 3 /* of shmchannel/stats_pages/histogram.py */

/* -- what is known ---------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *head, *end; /* of the head: before the age, and behind the lines of the connection */
    PyObject *mapping, *marks, *is_ready;
    PyObject *path; /* of the file that has the body; empty if the table has it */
    uint64_t sequence, version, device, inode;
    Py_ssize_t sequence_at, until_at, body_at, body_bytes, mark_at;
    int64_t marks_again_ns;
    long long initial_age_s, lifetime_s;
    double response_time;
    PyObject *counts; /* the list of a TimedEvent */
    PyObject *log_parts;
} Reply;

typedef struct {
    PyObject_HEAD
    PyObject *line; /* of the connection */
    PyObject *log_parts;
    int closes;
} Block;

static void reply_dealloc(Reply *self)
{
    Py_XDECREF(self->head);
    Py_XDECREF(self->end);
    Py_XDECREF(self->mapping);
    Py_XDECREF(self->marks);
    Py_XDECREF(self->path);
    Py_XDECREF(self->is_ready);
    Py_XDECREF(self->counts);
    Py_XDECREF(self->log_parts);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static void block_dealloc(Block *self)
{
    Py_XDECREF(self->line);
    Py_XDECREF(self->log_parts);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot reply_slots[] = {{Py_tp_dealloc, reply_dealloc}, {0, NULL}};
static PyType_Spec reply_spec = {"webproxy.serving.native_hits.Reply", sizeof(Reply), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, reply_slots};
static PyType_Slot block_slots[] = {{Py_tp_dealloc, block_dealloc}, {0, NULL}};
static PyType_Spec block_spec = {"webproxy.serving.native_hits.Block", sizeof(Block), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots};

/* -- the loop --------------------------------------------------------------------------------------------------- */

enum { FD, SERVED, EXPIRES, IS_WATCHED, STREAM, PARSER, SERVER, CLIENT, CONNECTION_SLOTS };
static const char *const connection_names[] = {"fd", "served", "expires", "is_watched", "stream", "parser", "_server",
                                               "client"};
enum { SENT_BYTES, WINDOW_END, NEVER_WAITS, STREAM_SLOTS };
static const char *const stream_names[] = {"sent_bytes", "_window_end", "never_waits"};
enum { AT, BUFFER, PARSER_SLOTS };
static const char *const parser_names[] = {"_at", "_buffer"};

typedef struct {
    PyObject_HEAD
    PyTypeObject *reply_type, *block_type, *connection_type;
    Py_ssize_t connection_at[CONNECTION_SLOTS], stream_at[STREAM_SLOTS], parser_at[PARSER_SLOTS];
    PyObject *targets, *older; /* bytes to Reply: a generation, and the one before it */
    PyObject *blocks;          /* bytes to Block */
    Py_ssize_t generation_bytes;
    PyObject *jobs;             /* the idle ones by descriptor */
    PyObject *server;           /* whose connections they are; NULL before attach() */
    PyObject *tail_parts[3];    /* what stands around age and remaining lifetime */
    PyObject *note_client, *clients_noted;
    PyObject *log_template, *tell_log, *add_lines; /* NULL without an access log */
    PyObject *id_token;
    PyObject *zero, *no_time;
    int epoll_fd, staying, staying_max, shift, buckets;
    Py_ssize_t clients_exact_max, clients_share, clients_light;
    double keepalive_s;
    unsigned long long ids;
    time_t log_second;
    char log_moment[40];
    Py_ssize_t lines_bytes;
    char lines[LINES_BYTES_MAX];
} HitLoop;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double wall_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int find_slots(PyTypeObject *type, const char *const *names, Py_ssize_t *found, int count)
{
    for (int i = 0; i < count; i++) {
        PyObject *member = PyObject_GetAttrString((PyObject *)type, names[i]);
        if (member == NULL)
            return -1;
        int is_slot = Py_IS_TYPE(member, &PyMemberDescr_Type);
        if (is_slot)
            found[i] = ((PyMemberDescrObject *)member)->d_member->offset;
        Py_DECREF(member);
        if (!is_slot) {
            PyErr_Format(PyExc_TypeError, "%s.%s is not a slot", type->tp_name, names[i]);
            return -1;
        }
    }
    return 0;
}

/* A slot that the object's __init__ has filled. */
#define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

static void set_slot(PyObject *object, Py_ssize_t offset, PyObject *value) /* takes the reference */
{
    PyObject *old = SLOT(object, offset);
    SLOT(object, offset) = value;
    Py_XDECREF(old);
}

static int add_to_slot(PyObject *object, Py_ssize_t offset, Py_ssize_t more)
{
    PyObject *sum = PyLong_FromLongLong(PyLong_AsLongLong(SLOT(object, offset)) + more);
    if (sum == NULL)
        return -1;
    set_slot(object, offset, sum);
    return 0;
}

static int add_to_item(PyObject *counts, Py_ssize_t at, long long more)
{
    PyObject *sum = PyLong_FromLongLong(PyLong_AsLongLong(PyList_GET_ITEM(counts, at)) + more);
    return sum == NULL ? -1 : PyList_SetItem(counts, at, sum);
}

/* As TimedEvent.note(). */
static int count_hit(HitLoop *self, PyObject *counts, Py_ssize_t sent_bytes, int64_t took_ns)
{
    uint64_t steps = (uint64_t)took_ns >> self->shift;
    int octave = steps ? 64 - __builtin_clzll(steps) - SUB_BITS - 1 : 0;
    if (octave < 0)
        octave = 0;
    uint64_t bucket = ((uint64_t)octave << SUB_BITS) + (steps >> octave);
    if (bucket > (uint64_t)self->buckets - 1)
        bucket = (uint64_t)self->buckets - 1;
    if (add_to_item(counts, 0, 1) || add_to_item(counts, 1, sent_bytes) || add_to_item(counts, 2, took_ns))
        return -1;
    return add_to_item(counts, 3 + (Py_ssize_t)bucket, 1);
}

/* -- recognising ------------------------------------------------------------------------------------------------ */

typedef struct {
    Reply *reply; /* to be let go of by release() */
    Block *block;
    long long age_s;
    int file_fd;          /* has the body, or -1 */
    Py_ssize_t body_bytes; /* in `body` */
    char body[BODY_BYTES_MAX];
} Found;

/* Let the cache know that the object is used; not each time, because the cache looks about once a second. */
static void mark_use(Reply *reply, int64_t now)
{
    Py_buffer view;
    if (now < reply->marks_again_ns)
        return;
    reply->marks_again_ns = now + MARK_AGAIN_NS;
    if (PyObject_GetBuffer(reply->marks, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear(); /* the hot table was closed */
        return;
    }
    char *mark = (char *)view.buf + reply->mark_at;
    if (!*mark)
        *mark = 1;
    PyBuffer_Release(&view);
}

/* Read a small body. What the page cache does not have is read without the GIL: the disk may be slow, and other threads
 * have hits to answer. */
static ssize_t read_body(int fd, char *body, Py_ssize_t bytes)
{
    struct iovec place = {body, (size_t)bytes};
    ssize_t count = preadv2(fd, &place, 1, 0, RWF_NOWAIT);
    if (count == bytes || bytes == 0)
        return count;
    Py_BEGIN_ALLOW_THREADS
    count = pread(fd, body, (size_t)bytes, 0);
    Py_END_ALLOW_THREADS
    return count;
}

/* Open exactly the file that has the body; a small one is read at once. 0 if it is not there any more. */
static int open_body(const Reply *reply, Found *found)
{
    struct stat status;
    int fd = open(PyBytes_AS_STRING(reply->path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return 0;
    int is_meant = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_dev == reply->device &&
                   status.st_ino == reply->inode && status.st_size == reply->body_bytes;
    if (is_meant && reply->body_bytes > BODY_BYTES_MAX) {
        found->file_fd = fd;
        return 1;
    }
    is_meant = is_meant && read_body(fd, found->body, reply->body_bytes) == reply->body_bytes;
    close(fd);
    found->body_bytes = reply->body_bytes;
    return is_meant;
}

static void release(Found *found)
{
    Py_DECREF(found->reply);
    Py_DECREF(found->block);
    if (found->file_fd >= 0)
        close(found->file_fd);
}

/* Whether the cell is what it was when the reply was learned. With `body` what the table has of it is copied, and the
 * cell looked at again. No view of the mapping outlives this: who closes it must not be in the way of one. */
static int cell_holds(const Reply *reply, int64_t now, char *body)
{
    Py_buffer view;
    if (PyObject_GetBuffer(reply->mapping, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear(); /* the hot table was closed */
        return 0;
    }
    const char *memory = view.buf;
    const uint64_t *sequence = (const uint64_t *)(memory + reply->sequence_at);
    int holds = __atomic_load_n(sequence, __ATOMIC_ACQUIRE) == reply->sequence &&
                __atomic_load_n((const uint64_t *)(memory + reply->until_at), __ATOMIC_ACQUIRE) > (uint64_t)now;
    if (holds && body != NULL) {
        memcpy(body, memory + reply->body_at, (size_t)reply->body_bytes);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        holds = __atomic_load_n(sequence, __ATOMIC_ACQUIRE) == reply->sequence;
    }
    PyBuffer_Release(&view);
    return holds;
}

/* Find the body, if the reply is what it was when it was learned. 1 if so, 0 if not, -1 with an exception. */
static int find_body(Found *found)
{
    Reply *reply = found->reply;
    int64_t now = now_ns();
    if (PyBytes_GET_SIZE(reply->path) > 0) {
        if (!cell_holds(reply, now, NULL) || !open_body(reply, found) || !cell_holds(reply, now, NULL))
            return 0;
    } else {
        if (!cell_holds(reply, now, found->body))
            return 0;
        found->body_bytes = reply->body_bytes;
    }
    mark_use(reply, now);
    PyObject *ready = PyObject_CallNoArgs(reply->is_ready);
    if (ready == NULL)
        return -1;
    int holds = PyObject_IsTrue(ready);
    Py_DECREF(ready);
    return holds;
}

/* Begin another generation when this one is full: what is not used until the next one begins is forgotten. */
static int keep_reply(HitLoop *self, PyObject *target, Reply *reply)
{
    Py_ssize_t bytes = ENTRY_BYTES + PyBytes_GET_SIZE(target) + PyBytes_GET_SIZE(reply->head) + PyBytes_GET_SIZE(reply->end) +
                       PyBytes_GET_SIZE(reply->path);
    for (int i = 0; i < REPLY_LOG_PARTS; i++)
        bytes += PyBytes_GET_SIZE(PyTuple_GET_ITEM(reply->log_parts, i));
    if (self->generation_bytes + bytes > GENERATION_BYTES_MAX) {
        PyObject *fresh = PyDict_New();
        if (fresh == NULL)
            return -1;
        Py_SETREF(self->older, self->targets);
        self->targets = fresh;
        self->generation_bytes = 0;
    }
    self->generation_bytes += bytes;
    return PyDict_SetItem(self->targets, target, (PyObject *)reply);
}

/* The reply to a target, a new reference; NULL if it is not known, or with an exception. */
static PyObject *known_reply(HitLoop *self, const char *target, Py_ssize_t bytes)
{
    PyObject *key = PyBytes_FromStringAndSize(target, bytes);
    if (key == NULL)
        return NULL;
    PyObject *reply = Py_XNewRef(PyDict_GetItemWithError(self->targets, key));
    if (reply == NULL && !PyErr_Occurred()) {
        reply = Py_XNewRef(PyDict_GetItemWithError(self->older, key));
        if (reply != NULL && keep_reply(self, key, (Reply *)reply) < 0)
            Py_CLEAR(reply);
    }
    Py_DECREF(key);
    return reply;
}

/* 1 with `found` filled, 0 if the request is not known or its reply is not valid, -1 with an exception. */
static int recognise(HitLoop *self, const char *data, Py_ssize_t count, Found *found)
{
    if (count < 16 || memcmp(data, "GET /", 5) != 0)
        return 0;
    const char *rest = memchr(data + 5, ' ', (size_t)count - 5);
    if (rest == NULL)
        return 0;
    PyObject *key = PyBytes_FromStringAndSize(rest, data + count - rest);
    if (key == NULL)
        return -1;
    PyObject *block = PyDict_GetItemWithError(self->blocks, key);
    Py_DECREF(key);
    if (block == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(block);
    PyObject *reply = known_reply(self, data + 4, rest - data - 4);
    if (reply == NULL) {
        Py_DECREF(block);
        return PyErr_Occurred() ? -1 : 0;
    }
    found->block = (Block *)block;
    found->reply = (Reply *)reply;
    double resident_s = wall_clock() - found->reply->response_time;
    found->age_s = found->reply->initial_age_s + (resident_s > 0 ? (long long)resident_s : 0);
    found->file_fd = -1;
    found->body_bytes = 0;
    int holds = found->age_s < found->reply->lifetime_s ? find_body(found) : 0;
    if (holds <= 0)
        release(found);
    return holds;
}

static struct iovec part_of(PyObject *bytes)
{
    return (struct iovec){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
}

#define PARTS 9
#define NUMBER_BYTES 24

static void lay_out(HitLoop *self, const Found *found, char numbers[2][NUMBER_BYTES], struct iovec *parts)
{
    Reply *reply = found->reply;
    int age_bytes = snprintf(numbers[0], NUMBER_BYTES, "%lld", found->age_s);
    int ttl_bytes = snprintf(numbers[1], NUMBER_BYTES, "%lld", reply->lifetime_s - found->age_s);
    parts[0] = part_of(reply->head);
    parts[1] = part_of(self->tail_parts[0]);
    parts[2] = (struct iovec){numbers[0], (size_t)age_bytes};
    parts[3] = part_of(self->tail_parts[1]);
    parts[4] = (struct iovec){numbers[1], (size_t)ttl_bytes};
    parts[5] = part_of(self->tail_parts[2]);
    parts[6] = part_of(found->block->line);
    parts[7] = part_of(reply->end);
    parts[8] = (struct iovec){(void *)found->body, (size_t)found->body_bytes};
}

/* Send the body behind the head; returns as send_reply(). Large ones are sent without the GIL. */
static ssize_t send_file(int fd, const Found *found, ssize_t head_sent)
{
    off_t offset = 0;
    ssize_t sent;
    int code;
    Py_BEGIN_ALLOW_THREADS
    do
        sent = sendfile(fd, found->file_fd, &offset, (size_t)found->reply->body_bytes);
    while (sent < 0 && errno == EINTR);
    code = errno;
    Py_END_ALLOW_THREADS
    if (sent < 0)
        return code == EAGAIN ? head_sent : -code;
    return head_sent + sent;
}

/* Send head and body, in one call if the body is in memory; returns the bytes sent or a negative error number, and the
 * length of both. A socket to which a file is sent must be non-blocking. */
static ssize_t send_reply(HitLoop *self, int fd, const Found *found, Py_ssize_t *length)
{
    struct iovec parts[PARTS];
    char numbers[2][NUMBER_BYTES];
    lay_out(self, found, numbers, parts);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};
    Py_ssize_t in_memory = 0;
    int flags = found->file_fd < 0 ? SEND_FLAGS : SEND_FLAGS | MSG_MORE;
    for (int i = 0; i < PARTS; i++)
        in_memory += (Py_ssize_t)parts[i].iov_len;
    *length = found->file_fd < 0 ? in_memory : in_memory + found->reply->body_bytes;
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, flags);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN ? 0 : -errno;
    return sent == in_memory && found->file_fd >= 0 ? send_file(fd, found, sent) : sent;
}

static int make_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* -- the access log --------------------------------------------------------------------------------------------- */

static int flush_lines(HitLoop *self)
{
    if (self->lines_bytes == 0)
        return 0;
    PyObject *lines = PyBytes_FromStringAndSize(self->lines, self->lines_bytes);
    self->lines_bytes = 0;
    if (lines == NULL)
        return -1;
    PyObject *nothing = PyObject_CallOneArg(self->add_lines, lines);
    Py_DECREF(lines);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* A template is a tuple of bytes, and of letters (str) for values: c or C the client, m or M the moment, 0 to 2 parts of
 * the reply, a and b parts of the block, u microseconds, i the id. */
static Py_ssize_t write_line(HitLoop *self, const Found *found, PyObject *client, int64_t took_ns, char *line)
{
    Py_ssize_t used = 0, count = PyTuple_GET_SIZE(self->log_template);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *piece = PyTuple_GET_ITEM(self->log_template, i);
        char value[64];
        const char *text = value;
        Py_ssize_t bytes;
        if (PyUnicode_Check(piece)) {
            struct timespec now;
            switch (PyUnicode_READ_CHAR(piece, 0)) {
            case 'c':
            case 'C': /* or nothing */
                if (PyUnicode_READ_CHAR(piece, 0) == 'c' && PyBytes_GET_SIZE(client) == 0) {
                    text = "-";
                    piece = NULL;
                } else
                    piece = client;
                break;
            case 'm':
            case 'M': /* with milliseconds */
                clock_gettime(CLOCK_REALTIME, &now);
                if (now.tv_sec != self->log_second) {
                    struct tm moment;
                    gmtime_r(&now.tv_sec, &moment);
                    self->log_second = now.tv_sec;
                    strftime(self->log_moment, sizeof self->log_moment,
                             PyUnicode_READ_CHAR(piece, 0) == 'M' ? "%Y-%m-%dT%H:%M:%S" : "%d/%b/%Y:%H:%M:%S +0000",
                             &moment);
                }
                if (PyUnicode_READ_CHAR(piece, 0) == 'M')
                    snprintf(value, sizeof value, "%s.%03dZ", self->log_moment, (int)(now.tv_nsec / 1000000) % 1000);
                else
                    text = self->log_moment;
                piece = NULL;
                break;
            case '0':
            case '1':
            case '2':
                piece = PyTuple_GET_ITEM(found->reply->log_parts, PyUnicode_READ_CHAR(piece, 0) - '0');
                break;
            case 'a':
            case 'b':
                piece = PyTuple_GET_ITEM(found->block->log_parts, PyUnicode_READ_CHAR(piece, 0) - 'a');
                break;
            case 'u':
                snprintf(value, sizeof value, "%lld", (long long)(took_ns / 1000));
                piece = NULL;
                break;
            default: /* the id */
                snprintf(value, sizeof value, "%.24s-%llx", PyBytes_AS_STRING(self->id_token), ++self->ids);
                piece = NULL;
            }
        }
        if (piece != NULL) {
            text = PyBytes_AS_STRING(piece);
            bytes = PyBytes_GET_SIZE(piece);
        } else
            bytes = (Py_ssize_t)strlen(text);
        if (used + bytes > LINES_BYTES_MAX)
            return 0; /* it cannot be that long: learn() has looked at the parts */
        memcpy(line + used, text, (size_t)bytes);
        used += bytes;
    }
    return used;
}

static int log_hit(HitLoop *self, const Found *found, PyObject *client, int64_t took_ns)
{
    char line[LINES_BYTES_MAX];
    Py_ssize_t bytes = write_line(self, found, client, took_ns, line);
    if (self->lines_bytes + bytes > LINES_BYTES_MAX && flush_lines(self) < 0)
        return -1;
    int is_first = self->lines_bytes == 0;
    memcpy(self->lines + self->lines_bytes, line, (size_t)bytes);
    self->lines_bytes += bytes;
    if (!is_first)
        return 0;
    PyObject *nothing = PyObject_CallNoArgs(self->tell_log);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

static PyObject *name_of(const struct sockaddr_storage *peer) /* as sockets.peer_name() */
{
    char text[INET6_ADDRSTRLEN] = "";
    if (peer->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)peer)->sin_addr, text, sizeof text);
    else if (peer->ss_family == AF_INET6) {
        const struct in6_addr *address = &((const struct sockaddr_in6 *)peer)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(address))
            inet_ntop(AF_INET, &address->s6_addr[12], text, sizeof text);
        else
            inet_ntop(AF_INET6, address, text, sizeof text);
    }
    return PyBytes_FromString(text);
}

static PyObject *name_of_peer(int fd)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t bytes = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &bytes) != 0)
        peer.ss_family = AF_UNSPEC;
    return name_of(&peer);
}

/* -- kept connections ------------------------------------------------------------------------------------------- */

static int fd_of(HitLoop *self, PyObject *connection)
{
    return (int)PyLong_AsLong(SLOT(connection, self->connection_at[FD]));
}

static PyObject *returned(PyObject *connection, PyObject *data) /* takes both references */
{
    if (data == NULL) {
        Py_DECREF(connection);
        return NULL;
    }
    PyObject *pair = PyTuple_Pack(2, connection, data);
    Py_DECREF(connection);
    Py_DECREF(data);
    return pair;
}

/* An exception, of which the caller could not tell by which connection it came: it is reported, and this one ends. */
static PyObject *given_up(HitLoop *self, PyObject *connection) /* takes the reference */
{
    PyErr_WriteUnraisable((PyObject *)self);
    return returned(connection, PyLong_FromLong(-EIO));
}

/* As IdleConnections.put(). Takes the reference. -1 with an exception. */
static int put_idle(HitLoop *self, PyObject *connection, int fd)
{
    PyObject *expires = PyFloat_FromDouble((double)now_ns() * 1e-9 + self->keepalive_s);
    if (expires == NULL)
        goto failed;
    set_slot(connection, self->connection_at[EXPIRES], expires);
    int again = SLOT(connection, self->connection_at[IS_WATCHED]) == Py_True;
    set_slot(connection, self->connection_at[IS_WATCHED], Py_NewRef(Py_True));
    PyObject *number = SLOT(connection, self->connection_at[FD]);
    if (PyDict_SetItem(self->jobs, number, connection) < 0)
        goto failed;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.fd = fd};
    if (epoll_ctl(self->epoll_fd, again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0 &&
        (errno != EEXIST || epoll_ctl(self->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0)) {
        if (PyDict_DelItem(self->jobs, number) < 0)
            goto failed;
        close(fd);
    }
    Py_DECREF(connection);
    return 0;
failed:
    Py_DECREF(connection);
    return -1;
}

/* A ready connection out of the idle ones, a new reference; NULL if there is none, or with an exception. */
static PyObject *take_idle(HitLoop *self)
{
    struct epoll_event event;
    if (PyDict_GET_SIZE(self->jobs) == 0 || epoll_wait(self->epoll_fd, &event, 1, 0) <= 0)
        return NULL;
    PyObject *number = PyLong_FromLong(event.data.fd);
    if (number == NULL)
        return NULL;
    PyObject *job = Py_XNewRef(PyDict_GetItemWithError(self->jobs, number));
    if (job != NULL && PyDict_DelItem(self->jobs, number) < 0)
        Py_CLEAR(job);
    Py_DECREF(number);
    return job;
}

/* It is one of ours, and nothing of its next request has been read. */
static int is_between_requests(HitLoop *self, PyObject *job)
{
    if (!Py_IS_TYPE(job, self->connection_type) || SLOT(job, self->connection_at[SERVER]) != self->server)
        return 0;
    PyObject *parser = SLOT(job, self->connection_at[PARSER]);
    return PyLong_AsSsize_t(SLOT(parser, self->parser_at[AT])) >= PyBytes_GET_SIZE(SLOT(parser, self->parser_at[BUFFER]));
}

/* Receive what has come; while a worker is left for everybody else, and after an answer, wait a moment for it. */
static ssize_t receive(HitLoop *self, PyObject *connection, int fd, char *data, int may_stay)
{
    ssize_t count;
    do
        count = recv(fd, data, RECEIVE_BYTES, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    if (count >= 0 || errno != EAGAIN || !may_stay || self->staying >= self->staying_max)
        return count;
    PyObject *stream = SLOT(connection, self->connection_at[STREAM]);
    int is_nonblocking = SLOT(stream, self->stream_at[NEVER_WAITS]) == Py_True;
    int code;
    self->staying++;
    Py_BEGIN_ALLOW_THREADS
    if (is_nonblocking) {
        struct pollfd watched = {.fd = fd, .events = POLLIN};
        poll(&watched, 1, STAY_MS);
    }
    count = recv(fd, data, RECEIVE_BYTES, 0); /* for as long as the socket's receive timeout, at most */
    code = errno;
    Py_END_ALLOW_THREADS
    self->staying--;
    errno = code == EINTR ? EAGAIN : code;
    return count;
}

/* What is known of a reply that was not sent whole: the request, head and body or the head alone, how much of both was
 * sent or a negative error number, the file that has the body, now the caller's, or -1, and the object's version. */
static PyObject *unsent(HitLoop *self, const char *data, Py_ssize_t count, Found *found, ssize_t sent)
{
    PyObject *whole = PyBytes_FromStringAndSize(NULL, 0);
    struct iovec parts[PARTS];
    char numbers[2][NUMBER_BYTES];
    lay_out(self, found, numbers, parts);
    for (int i = 0; i < PARTS && whole != NULL; i++)
        PyBytes_ConcatAndDel(&whole, PyBytes_FromStringAndSize(parts[i].iov_base, (Py_ssize_t)parts[i].iov_len));
    if (whole == NULL)
        return NULL;
    PyObject *told = Py_BuildValue("(y#NniK)", data, count, whole, (Py_ssize_t)sent, found->file_fd,
                                   (unsigned long long)found->reply->version);
    if (told != NULL)
        found->file_fd = -1;
    return told;
}

PyDoc_STRVAR(serve_doc,
             "serve(connection, data)\n--\n\n"
             "Answer known requests of a connection, and of others that are ready, for as long as they follow each other.\n\n"
             "`data` was received on it already, or is empty. Returns the connection that the worker has now, and what was\n"
             "received on it: bytes that are no known request, none at the client's end, None if nothing has come, a negative\n"
             "error number if it is broken, True if it ends with the last reply, False if it is another server's or in the\n"
             "middle of a head; or of a reply that was not sent whole the request, the reply, how much of it was sent or a\n"
             "negative error number, the descriptor of its body, which is the caller's, or -1 if the reply has it, and the\n"
             "object's version.");

static PyObject *serve(HitLoop *self, PyObject *const *arguments, Py_ssize_t argument_count)
{
    if (argument_count != 2 || !Py_IS_TYPE(arguments[0], self->connection_type) || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "serve() takes a connection and bytes");
        return NULL;
    }
    PyObject *connection = Py_NewRef(arguments[0]);
    char buffer[RECEIVE_BYTES];
    const char *data = PyBytes_AS_STRING(arguments[1]);
    ssize_t count = PyBytes_GET_SIZE(arguments[1]);
    Found found;
    for (int number = 0; number < IN_A_ROW_MAX; number++) {
        int fd = fd_of(self, connection);
        if (count == 0) {
            data = buffer;
            count = receive(self, connection, fd, buffer, SLOT(connection, self->connection_at[SERVED]) != self->zero);
            if (count < 0)
                return returned(connection, errno == EAGAIN ? Py_NewRef(Py_None) : PyLong_FromLong(-errno));
            if (count == 0)
                return returned(connection, PyBytes_FromStringAndSize(NULL, 0));
        }
        int64_t began_ns = now_ns();
        int is_known = recognise(self, data, count, &found);
        if (is_known < 0)
            return given_up(self, connection);
        if (!is_known)
            return returned(connection, PyBytes_FromStringAndSize(data, count));
        PyObject *stream = SLOT(connection, self->connection_at[STREAM]);
        set_slot(stream, self->stream_at[WINDOW_END], Py_NewRef(self->no_time)); /* as measure_anew() */
        if (found.file_fd >= 0 && SLOT(stream, self->stream_at[NEVER_WAITS]) != Py_True) {
            make_nonblocking(fd);
            set_slot(stream, self->stream_at[NEVER_WAITS], Py_NewRef(Py_True));
        }
        Py_ssize_t length;
        ssize_t sent = send_reply(self, fd, &found, &length);
        int64_t took_ns = now_ns() - began_ns;
        int closes = found.block->closes, has_failed = sent > 0 && add_to_slot(stream, self->stream_at[SENT_BYTES], sent);
        PyObject *left = NULL;
        if (sent != length) {
            left = unsent(self, data, count, &found, sent);
            has_failed |= left == NULL;
        } else {
            has_failed |= count_hit(self, found.reply->counts, length, took_ns) ||
                          add_to_slot(connection, self->connection_at[SERVED], 1);
            if (!has_failed && self->log_template != NULL) {
                if (PyBytes_GET_SIZE(SLOT(connection, self->connection_at[CLIENT])) == 0) {
                    PyObject *client = name_of_peer(fd);
                    if (client == NULL)
                        has_failed = 1;
                    else
                        set_slot(connection, self->connection_at[CLIENT], client);
                }
                if (!has_failed)
                    has_failed = log_hit(self, &found, SLOT(connection, self->connection_at[CLIENT]), took_ns) < 0;
            }
            if (closes)
                left = Py_NewRef(Py_True);
        }
        release(&found);
        if (has_failed) {
            Py_XDECREF(left);
            return given_up(self, connection);
        }
        if (left != NULL)
            return returned(connection, left);
        count = 0;
        /* Others go first, without a way through the acceptor: one that is as busy is looked at soon enough. */
        PyObject *other = take_idle(self);
        if (other != NULL) {
            if (put_idle(self, connection, fd) < 0)
                return given_up(self, other);
            connection = other;
            if (!is_between_requests(self, other))
                return returned(other, Py_NewRef(Py_False));
        } else if (PyErr_Occurred())
            return given_up(self, connection);
    }
    return returned(connection, Py_NewRef(Py_None));
}

/* -- new connections -------------------------------------------------------------------------------------------- */

/* Count a connection with one hit for its client, or let another one stand for it; as TopCounts.note_connection(). */
static int note_client(HitLoop *self, const struct sockaddr_storage *peer, Py_ssize_t sent_bytes)
{
    Py_ssize_t stands_for = 1;
    if (PyObject_Size(self->clients_noted) >= self->clients_exact_max) {
        if (++self->clients_light % self->clients_share)
            return 0;
        stands_for = self->clients_share;
    }
    PyObject *client = name_of(peer);
    if (client == NULL)
        return -1;
    PyObject *nothing = PyObject_CallFunction(self->note_client, "Onn", client, sent_bytes, stands_for);
    Py_DECREF(client);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

PyDoc_STRVAR(accept_doc,
             "accept(listener_fd)\n--\n\n"
             "Accept connections, and answer those that send a known request and close, for as long as they follow each\n"
             "other. Returns None if no more wait, or the descriptor of another one and what was received: bytes, None if\n"
             "nothing has come, or of a reply that was not sent whole a tuple as from serve().\n\n"
             "Raises:\n    OSError: as sockets.accept().");

static PyObject *accept_known(HitLoop *self, PyObject *argument)
{
    int listener_fd = (int)PyLong_AsLong(argument);
    char buffer[RECEIVE_BYTES];
    Found found;
    if (listener_fd == -1 && PyErr_Occurred())
        return NULL;
    for (int number = 0; number < IN_A_ROW_MAX; number++) {
        struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
        socklen_t peer_bytes = sizeof peer;
        int fd = accept4(listener_fd, (struct sockaddr *)&peer, &peer_bytes, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR)
                break;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        ssize_t count = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (count < 0)
            return Py_BuildValue("(iO)", fd, Py_None); /* nothing yet, or an error that the next call reports again */
        int64_t began_ns = now_ns();
        int is_known = recognise(self, buffer, count, &found);
        if (is_known < 0) {
            close(fd);
            return NULL;
        }
        if (is_known && !found.block->closes) {
            release(&found);
            is_known = 0;
        }
        if (!is_known)
            return Py_BuildValue("(iy#)", fd, buffer, (Py_ssize_t)count);
        if (found.file_fd >= 0)
            make_nonblocking(fd);
        Py_ssize_t length;
        ssize_t sent = send_reply(self, fd, &found, &length);
        if (sent != length) {
            PyObject *left = unsent(self, buffer, count, &found, sent);
            release(&found);
            return left == NULL ? NULL : Py_BuildValue("(iN)", fd, left);
        }
        int64_t took_ns = now_ns() - began_ns;
        int has_failed = count_hit(self, found.reply->counts, length, took_ns) || note_client(self, &peer, length) < 0;
        if (!has_failed && self->log_template != NULL) {
            PyObject *client = name_of(&peer);
            has_failed = client == NULL || log_hit(self, &found, client, took_ns) < 0;
            Py_XDECREF(client);
        }
        release(&found);
        close(fd); /* the client has said that it sends no more, and the kernel has all that it is to be sent */
        if (has_failed)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* -- learning --------------------------------------------------------------------------------------------------- */

static int are_bytes(PyObject *parts, Py_ssize_t count)
{
    if (!PyTuple_Check(parts) || PyTuple_GET_SIZE(parts) != count)
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!PyBytes_Check(PyTuple_GET_ITEM(parts, i)))
            return 0;
    return 1;
}

PyDoc_STRVAR(learn_block_doc,
             "learn_block(rest, closes, line, log_parts)\n--\n\n"
             "A request of which `rest` follows the target is plain; its reply has this line of the connection, or none, and\n"
             "if it `closes`, the client has said that it sends nothing more.");

static PyObject *learn_block(HitLoop *self, PyObject *arguments)
{
    PyObject *rest, *line, *log_parts;
    int closes;
    if (!PyArg_ParseTuple(arguments, "SpSO", &rest, &closes, &line, &log_parts))
        return NULL;
    if (!are_bytes(log_parts, BLOCK_LOG_PARTS)) {
        PyErr_SetString(PyExc_TypeError, "the parts for the log are a tuple of two bytes");
        return NULL;
    }
    Block *block = PyObject_New(Block, self->block_type);
    if (block == NULL)
        return NULL;
    block->line = Py_NewRef(line);
    block->log_parts = Py_NewRef(log_parts);
    block->closes = closes;
    if (PyDict_GET_SIZE(self->blocks) >= BLOCKS_MAX)
        PyDict_Clear(self->blocks);
    int failed = PyDict_SetItem(self->blocks, rest, (PyObject *)block);
    Py_DECREF(block);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(learn_reply_doc,
             "learn_reply(target, reply)\n--\n\n"
             "The reply to a plain GET of a target: a tuple as LearnedReply in hit_loop.py.");

static PyObject *learn_reply(HitLoop *self, PyObject *arguments)
{
    PyObject *target, *head, *end, *mapping, *marks, *path, *is_ready, *counts, *log_parts;
    unsigned long long sequence, version, device, inode;
    Py_ssize_t sequence_at, until_at, body_at, body_bytes, mark_at;
    long long initial_age_s, lifetime_s;
    double response_time;
    if (!PyArg_ParseTuple(arguments, "S(SSOKnnnnKSKKOnOLdLO!O)", &target, &head, &end, &mapping, &sequence, &sequence_at,
                          &until_at, &body_at, &body_bytes, &version, &path, &device, &inode, &marks, &mark_at, &is_ready, &initial_age_s, &response_time, &lifetime_s,
                          &PyList_Type, &counts, &log_parts))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(mapping, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t mapped = view.len;
    PyBuffer_Release(&view); /* a mapping never shrinks */
    if (PyObject_GetBuffer(marks, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    Py_ssize_t marks_bytes = view.len;
    PyBuffer_Release(&view);
    if (sequence_at < 0 || sequence_at % 8 || sequence_at > mapped - 8 || until_at < 0 || until_at % 8 ||
        until_at > mapped - 8 || body_bytes < 0 || body_at < 0 ||
        body_at > mapped ||
        (PyBytes_GET_SIZE(path) == 0 && (body_bytes > BODY_BYTES_MAX || body_at > mapped - body_bytes)) || mark_at < 0 || mark_at >= marks_bytes || PyList_GET_SIZE(counts) != 3 + self->buckets ||
        !are_bytes(log_parts, REPLY_LOG_PARTS)) {
        PyErr_SetString(PyExc_ValueError, "the reply is not within its hot table");
        return NULL;
    }
    Reply *reply = PyObject_New(Reply, self->reply_type);
    if (reply == NULL)
        return NULL;
    reply->head = Py_NewRef(head);
    reply->end = Py_NewRef(end);
    reply->mapping = Py_NewRef(mapping);
    reply->marks = Py_NewRef(marks);
    reply->path = Py_NewRef(path);
    reply->version = version;
    reply->device = device;
    reply->inode = inode;
    reply->is_ready = Py_NewRef(is_ready);
    reply->counts = Py_NewRef(counts);
    reply->log_parts = Py_NewRef(log_parts);
    reply->sequence = sequence;
    reply->sequence_at = sequence_at;
    reply->until_at = until_at;
    reply->body_at = body_at;
    reply->body_bytes = body_bytes;
    reply->mark_at = mark_at;
    reply->marks_again_ns = 0;
    reply->initial_age_s = initial_age_s;
    reply->response_time = response_time;
    reply->lifetime_s = lifetime_s;
    int failed = keep_reply(self, target, reply);
    Py_DECREF(reply);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget()\n--\n\nRecognise nothing that was learned until now.");

static PyObject *forget(HitLoop *self, PyObject *Py_UNUSED(nothing))
{
    PyDict_Clear(self->blocks);
    PyDict_Clear(self->targets);
    PyDict_Clear(self->older);
    self->generation_bytes = 0;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(take_lines_doc, "take_lines()\n--\n\nHand over the lines of the access log that have not been handed over yet.");

static PyObject *take_lines(HitLoop *self, PyObject *Py_UNUSED(nothing))
{
    Py_ssize_t bytes = self->lines_bytes;
    self->lines_bytes = 0;
    return PyBytes_FromStringAndSize(self->lines, bytes);
}

PyDoc_STRVAR(attach_doc, "attach(server)\n--\n\nServe connections of this server only.");

static PyObject *attach(HitLoop *self, PyObject *server)
{
    Py_XSETREF(self->server, Py_NewRef(server));
    Py_RETURN_NONE;
}

/* -- the type --------------------------------------------------------------------------------------------------- */

static int hit_loop_init(HitLoop *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"connection_type", "stream_type",  "parser_type", "jobs",   "epoll_fd", "keepalive_s", "staying_max",
                            "tail_parts",      "buckets",      "clients",     "access_log", NULL};
    PyObject *connection_type, *stream_type, *parser_type, *jobs, *tail_parts, *log;
    PyObject *note_client, *clients_noted;
    Py_ssize_t exact_max, share;
    if (self->targets != NULL) {
        PyErr_SetString(PyExc_TypeError, "it is initialised already");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!O!O!O!idiO(ii)(OOnn)O:HitLoop", names, &PyType_Type,
                                     &connection_type, &PyType_Type, &stream_type, &PyType_Type, &parser_type,
                                     &PyDict_Type, &jobs, &self->epoll_fd, &self->keepalive_s, &self->staying_max,
                                     &tail_parts, &self->shift, &self->buckets, &note_client, &clients_noted, &exact_max,
                                     &share, &log))
        return -1;
    if (!are_bytes(tail_parts, 3)) {
        PyErr_SetString(PyExc_TypeError, "tail_parts are three bytes");
        return -1;
    }
    if (find_slots((PyTypeObject *)connection_type, connection_names, self->connection_at, CONNECTION_SLOTS) < 0 ||
        find_slots((PyTypeObject *)stream_type, stream_names, self->stream_at, STREAM_SLOTS) < 0 ||
        find_slots((PyTypeObject *)parser_type, parser_names, self->parser_at, PARSER_SLOTS) < 0)
        return -1;
    if (log != Py_None) {
        PyObject *template, *tell, *add, *token;
        if (!PyArg_ParseTuple(log, "O!OOS", &PyTuple_Type, &template, &tell, &add, &token))
            return -1;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(template); i++) {
            PyObject *piece = PyTuple_GET_ITEM(template, i);
            if (!PyBytes_Check(piece) && !(PyUnicode_Check(piece) && PyUnicode_GET_LENGTH(piece) == 1)) {
                PyErr_SetString(PyExc_TypeError, "a template has bytes and letters");
                return -1;
            }
        }
        self->log_template = Py_NewRef(template);
        self->tell_log = Py_NewRef(tell);
        self->add_lines = Py_NewRef(add);
        self->id_token = Py_NewRef(token);
    }
    self->connection_type = (PyTypeObject *)Py_NewRef(connection_type);
    self->jobs = Py_NewRef(jobs);
    self->note_client = Py_NewRef(note_client);
    self->clients_noted = Py_NewRef(clients_noted);
    self->clients_exact_max = exact_max;
    self->clients_share = share > 0 ? share : 1;
    self->log_second = -1;
    for (int i = 0; i < 3; i++)
        self->tail_parts[i] = Py_NewRef(PyTuple_GET_ITEM(tail_parts, i));
    self->reply_type = (PyTypeObject *)PyType_FromSpec(&reply_spec);
    self->block_type = (PyTypeObject *)PyType_FromSpec(&block_spec);
    self->targets = PyDict_New();
    self->older = PyDict_New();
    self->blocks = PyDict_New();
    self->zero = PyLong_FromLong(0);
    self->no_time = PyFloat_FromDouble(0.0);
    return self->reply_type && self->block_type && self->targets && self->older && self->blocks && self->zero &&
                   self->no_time
               ? 0
               : -1;
}

static int hit_loop_traverse(HitLoop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->targets);
    Py_VISIT(self->older);
    Py_VISIT(self->blocks);
    Py_VISIT(self->jobs);
    Py_VISIT(self->server);
    Py_VISIT(self->note_client);
    Py_VISIT(self->clients_noted);
    Py_VISIT(self->tell_log);
    Py_VISIT(self->add_lines);
    return 0;
}

static int hit_loop_clear(HitLoop *self)
{
    Py_CLEAR(self->targets);
    Py_CLEAR(self->older);
    Py_CLEAR(self->blocks);
    Py_CLEAR(self->jobs);
    Py_CLEAR(self->server);
    Py_CLEAR(self->note_client);
    Py_CLEAR(self->clients_noted);
    Py_CLEAR(self->tell_log);
    Py_CLEAR(self->add_lines);
    return 0;
}

static void hit_loop_dealloc(HitLoop *self)
{
    PyObject_GC_UnTrack(self);
    hit_loop_clear(self);
    Py_XDECREF(self->reply_type);
    Py_XDECREF(self->block_type);
    Py_XDECREF(self->connection_type);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(self->tail_parts[i]);
    Py_XDECREF(self->log_template);
    Py_XDECREF(self->id_token);
    Py_XDECREF(self->zero);
    Py_XDECREF(self->no_time);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef hit_loop_methods[] = {
    {"serve", (PyCFunction)(void (*)(void))serve, METH_FASTCALL, serve_doc},
    {"accept", (PyCFunction)accept_known, METH_O, accept_doc},
    {"learn_block", (PyCFunction)learn_block, METH_VARARGS, learn_block_doc},
    {"learn_reply", (PyCFunction)learn_reply, METH_VARARGS, learn_reply_doc},
    {"forget", (PyCFunction)forget, METH_NOARGS, forget_doc},
    {"take_lines", (PyCFunction)take_lines, METH_NOARGS, take_lines_doc},
    {"attach", (PyCFunction)attach, METH_O, attach_doc},
    {NULL},
};

static PyType_Slot hit_loop_slots[] = {
    {Py_tp_doc, "The loop of one process; its methods are for any thread."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, hit_loop_init},
    {Py_tp_traverse, hit_loop_traverse},
    {Py_tp_clear, hit_loop_clear},
    {Py_tp_dealloc, hit_loop_dealloc},
    {Py_tp_methods, hit_loop_methods},
    {0, NULL},
};
static PyType_Spec hit_loop_spec = {"webproxy.serving.native_hits.HitLoop", sizeof(HitLoop), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, hit_loop_slots};

static int fill_module(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&hit_loop_spec);
    int failed = type == NULL ? -1 : PyModule_AddObjectRef(module, "HitLoop", type);
    Py_XDECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "native_hits", "Answers known requests; see hit_loop.py.", 0, NULL, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native_hits(void)
{
    return PyModuleDef_Init(&module);
}
