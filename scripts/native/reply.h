/* What a server answered: header bytes to a value. No I/O, no state. */
#ifndef GFBLAST_REPLY_H
#define GFBLAST_REPLY_H

#include <stddef.h>
#include <stdint.h>

#define HEADER_BYTES_MAX 4096

enum status { STATUS_OK, STATUS_FILE_NOT_FOUND, STATUS_ERROR, STATUS_INVALID, STATUS_COUNT };
enum wire { WIRE_CRLF, WIRE_SPACE, WIRE_HTTP, WIRE_COUNT };
enum parse { PARSE_MORE, PARSE_DONE, PARSE_BAD };

extern const char *const status_names[STATUS_COUNT];
extern const char *const wire_names[WIRE_COUNT];

struct reply {
    enum status status;
    enum wire wire;
    uint64_t length;     /* of the content; 0 unless status is STATUS_OK */
    size_t header_bytes; /* where the content begins */
};

/* Read a getfile header of either form; the byte after the status or the length tells which. */
enum parse reply_parse_getfile(const char *bytes, size_t count, struct reply *out);

/* Read an HTTP/1.x header, for the peers of the benchmark: a content length is required. */
enum parse reply_parse_http(const char *bytes, size_t count, struct reply *out);

#endif
