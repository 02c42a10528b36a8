/* Header bytes to a value; see reply.h. */
#define _GNU_SOURCE
#include "reply.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

const char *const status_names[STATUS_COUNT] = {"OK", "FILE_NOT_FOUND", "ERROR", "INVALID"};
const char *const wire_names[WIRE_COUNT] = {"crlf", "space", "http"};

struct cursor {
    const char *at, *end;
};

/* Step over `text`. MORE when the bytes end inside it, BAD at the first other byte. */
static enum parse expect(struct cursor *in, const char *text)
{
    for (; *text; text++, in->at++) {
        if (in->at == in->end)
            return PARSE_MORE;
        if (*in->at != *text)
            return PARSE_BAD;
    }
    return PARSE_DONE;
}

/* Read a decimal of 64 bits. DONE only when a byte that is no digit follows. */
static enum parse decimal(struct cursor *in, uint64_t *value)
{
    const char *first = in->at;
    for (*value = 0; in->at < in->end && *in->at >= '0' && *in->at <= '9'; in->at++) {
        uint64_t digit = (uint64_t)(*in->at - '0');
        if (*value > (UINT64_MAX - digit) / 10)
            return PARSE_BAD;
        *value = *value * 10 + digit;
    }
    if (in->at == in->end)
        return PARSE_MORE;
    return in->at > first ? PARSE_DONE : PARSE_BAD;
}

static enum parse status_word(struct cursor *in, enum status *status)
{
    bool may_grow = false;
    size_t left = (size_t)(in->end - in->at);
    for (int each = 0; each < STATUS_COUNT; each++) {
        size_t length = strlen(status_names[each]);
        if (left > length && memcmp(in->at, status_names[each], length) == 0) {
            *status = (enum status)each;
            in->at += length;
            return PARSE_DONE;
        }
        may_grow |= left <= length && memcmp(in->at, status_names[each], left) == 0;
    }
    return may_grow ? PARSE_MORE : PARSE_BAD;
}

enum parse reply_parse_getfile(const char *bytes, size_t count, struct reply *out)
{
    struct cursor in = {bytes, bytes + count};
    enum parse step;
    *out = (struct reply){.wire = WIRE_CRLF};
    if ((step = expect(&in, "GETFILE ")) != PARSE_DONE || (step = status_word(&in, &out->status)) != PARSE_DONE)
        return step;
    if (out->status == STATUS_OK) {
        if ((step = expect(&in, " ")) != PARSE_DONE || (step = decimal(&in, &out->length)) != PARSE_DONE)
            return step;
        out->wire = *in.at == ' ' ? WIRE_SPACE : WIRE_CRLF;
        step = expect(&in, out->wire == WIRE_SPACE ? " " : "\r\n\r\n");
    } else {
        out->wire = *in.at == ' ' ? WIRE_SPACE : WIRE_CRLF;
        step = expect(&in, out->wire == WIRE_SPACE ? " 0\n" : "\r\n\r\n");
    }
    out->header_bytes = (size_t)(in.at - bytes);
    return step;
}

enum parse reply_parse_http(const char *bytes, size_t count, struct reply *out)
{
    static const char field[] = "\r\ncontent-length:";
    const char *end = memmem(bytes, count, "\r\n\r\n", 4);
    if (!end)
        return PARSE_MORE;
    *out = (struct reply){.wire = WIRE_HTTP, .status = STATUS_ERROR, .header_bytes = (size_t)(end - bytes) + 4};
    if (count < 12 || memcmp(bytes, "HTTP/1.", 7) != 0)
        return PARSE_BAD;
    if (memcmp(bytes + 8, " 404", 4) == 0)
        out->status = STATUS_FILE_NOT_FOUND;
    if (memcmp(bytes + 8, " 200", 4) != 0)
        return PARSE_DONE;
    out->status = STATUS_OK;
    for (const char *line = bytes; (line = memchr(line, '\r', (size_t)(end - line))); line++) {
        if (strncasecmp(line, field, sizeof field - 1) != 0)
            continue;
        struct cursor in = {line + sizeof field - 1, end + 1};
        while (in.at < in.end && *in.at == ' ')
            in.at++;
        return decimal(&in, &out->length) == PARSE_DONE ? PARSE_DONE : PARSE_BAD;
    }
    return PARSE_BAD;
}
