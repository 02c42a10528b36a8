/* The command line to a plan; see plan.h. */
#define _GNU_SOURCE
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: gfblast -p PORT [options] [PATH ...]\n"
    "  -s HOST   server (127.0.0.1)                  -p PORT   its port\n"
    "  -t N      threads (1)                         -r AMOUNT requests in all, or seconds as 2.5s (100)\n"
    "  -w FILE   paths, one a line                   -k FILE   map of `key file` lines: compare every byte\n"
    "  -M        with -k: a path that is not in the map must be answered FILE_NOT_FOUND\n"
    "  -T MS     limit for one whole request (30000) -H        ask in HTTP/1.1 (for peers of the benchmark)\n"
    "  -g NAME,THREADS,AMOUNT,PATH[,PATH...]  a group of its own; may be repeated. AMOUNT is as for -r, or\n"
    "            `while`: until the groups that are not `while` have ended. @FILE is a list of paths.\n"
    "One connection a request. JSON on stdout. Exit status: 0 every reply was right, 1 some were not, 2 usage.\n";

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    fputs("gfblast: ", stderr);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    va_end(rest);
    exit(2);
}

static void *grown(void *array, size_t count, size_t each)
{
    void *larger = reallocarray(array, count + 1, each);
    if (!larger)
        fail("out of memory");
    return larger;
}

static char *copied(const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        fail("out of memory");
    return copy;
}

static double number(const char *what, const char *text, double low, double high, char **rest)
{
    errno = 0;
    double value = strtod(text, rest);
    if (*rest == text || errno || !(value >= low && value <= high))
        fail("%s must be a number from %g to %g, not '%s'", what, low, high, text);
    return value;
}

static int whole_number(const char *what, const char *text, int low, int high)
{
    char *rest;
    double value = number(what, text, low, high, &rest);
    if (*rest || value != (int)value)
        fail("%s must be a whole number, not '%s'", what, text);
    return (int)value;
}

static void set_amount(struct group *group, const char *text)
{
    char *rest;
    if (strcmp(text, "while") == 0) {
        group->amount = AMOUNT_WHILE;
        return;
    }
    double value = number("an amount", text, 0.001, 1e12, &rest);
    group->amount = strcmp(rest, "s") == 0 ? AMOUNT_SECONDS : AMOUNT_REQUESTS;
    if (group->amount == AMOUNT_REQUESTS && (*rest || value < 1))
        fail("an amount is a number of requests (100), of seconds (2.5s) or `while`, not '%s'", text);
    group->seconds = value;
    group->requests = (uint64_t)value;
}

static void add_target(struct group *group, const char *path)
{
    if (path[0] != '/' || strlen(path) > 4096 || strpbrk(path, " \t\r\n"))
        fail("a path starts with '/', has no blank and at most 4096 bytes: '%.80s'", path);
    group->targets = grown(group->targets, group->target_count, sizeof *group->targets);
    group->targets[group->target_count++] = (struct target){.path = copied(path), .expected = STATUS_OK};
}

static void add_targets_from(struct group *group, const char *file)
{
    char *line = NULL, *rest;
    size_t room = 0;
    FILE *in = fopen(file, "re");
    if (!in)
        fail("cannot read %s: %s", file, strerror(errno));
    while (getline(&line, &room, in) >= 0) {
        char *path = strtok_r(line, " \t\r\n", &rest);
        if (path)
            add_target(group, path);
    }
    free(line);
    fclose(in);
}

static struct group *add_group(struct plan *plan, const char *name, int threads)
{
    plan->groups = grown(plan->groups, plan->group_count, sizeof *plan->groups);
    struct group *group = &plan->groups[plan->group_count++];
    *group = (struct group){.name = copied(name), .threads = threads};
    return group;
}

static void add_group_from(struct plan *plan, const char *text)
{
    char *copy = copied(text), *rest;
    char *name = strtok_r(copy, ",", &rest), *threads = strtok_r(NULL, ",", &rest);
    char *amount = strtok_r(NULL, ",", &rest), *path = strtok_r(NULL, ",", &rest);
    if (!path)
        fail("a group is NAME,THREADS,AMOUNT,PATH[,PATH...], not '%s'", text);
    struct group *group = add_group(plan, name, whole_number("the threads of a group", threads, 1, 4096));
    set_amount(group, amount);
    for (; path; path = strtok_r(NULL, ",", &rest))
        path[0] == '@' ? add_targets_from(group, path + 1) : add_target(group, path);
    free(copy);
}

/* Map a reference file; it stays mapped to the end of the process. */
static void set_reference(struct target *target, const char *file)
{
    struct stat facts;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts) < 0)
        fail("cannot read the reference of %s, %s: %s", target->path, file, strerror(errno));
    target->reference = "";
    target->reference_bytes = (uint64_t)facts.st_size;
    if (facts.st_size > 0)
        target->reference = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (target->reference == MAP_FAILED)
        fail("cannot map %s: %s", file, strerror(errno));
    close(fd);
}

static void set_references_of(struct plan *plan, const char *key, const char *file)
{
    for (size_t g = 0; g < plan->group_count; g++)
        for (size_t t = 0; t < plan->groups[g].target_count; t++)
            if (strcmp(plan->groups[g].targets[t].path, key) == 0)
                set_reference(&plan->groups[g].targets[t], file);
}

static void read_map(struct plan *plan, const char *map, bool others_missing)
{
    char *line = NULL, *rest, full[8192];
    size_t room = 0;
    const char *slash = strrchr(map, '/');
    int folder = slash ? (int)(slash - map) + 1 : 0;
    FILE *in = fopen(map, "re");
    if (!in)
        fail("cannot read %s: %s", map, strerror(errno));
    while (getline(&line, &room, in) >= 0) {
        char *key = strtok_r(line, " \t\r\n", &rest), *file = strtok_r(NULL, " \t\r\n", &rest);
        if (!key || !file)
            continue;
        snprintf(full, sizeof full, "%.*s%s", file[0] == '/' ? 0 : folder, map, file);
        set_references_of(plan, key, full);
    }
    free(line);
    fclose(in);
    for (size_t g = 0; g < plan->group_count; g++)
        for (size_t t = 0; others_missing && t < plan->groups[g].target_count; t++)
            if (!plan->groups[g].targets[t].reference)
                plan->groups[g].targets[t].expected = STATUS_FILE_NOT_FOUND;
}

static void resolve(struct plan *plan, const char *host, const char *port)
{
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    int problem = getaddrinfo(host, port, &wanted, &found);
    if (problem)
        fail("cannot resolve %s: %s", host, gai_strerror(problem));
    memcpy(&plan->address, found->ai_addr, found->ai_addrlen);
    plan->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
}

static void check(const struct plan *plan)
{
    bool ends = false;
    for (size_t g = 0; g < plan->group_count; g++) {
        if (!plan->groups[g].target_count)
            fail("group %s has no path", plan->groups[g].name);
        ends |= plan->groups[g].amount != AMOUNT_WHILE;
    }
    if (!ends)
        fail("every group is `while`: nothing would ever end");
}

struct plan plan_from_arguments(int argc, char **argv)
{
    struct plan plan = {.timeout_ms = 30000};
    const char *host = "127.0.0.1", *port = NULL, *list = NULL, *map = NULL, *amount = "100";
    int option, threads = 1;
    bool others_missing = false;
    while ((option = getopt(argc, argv, "s:p:t:r:w:k:MT:Hg:h")) != -1) {
        switch (option) {
        case 's': host = optarg; break;
        case 'p': whole_number("-p", port = optarg, 1, 65535); break;
        case 't': threads = whole_number("-t", optarg, 1, 4096); break;
        case 'r': amount = optarg; break;
        case 'w': list = optarg; break;
        case 'k': map = optarg; break;
        case 'M': others_missing = true; break;
        case 'T': plan.timeout_ms = whole_number("-T", optarg, 1, 3600000); break;
        case 'H': plan.http = true; break;
        case 'g': add_group_from(&plan, optarg); break;
        case 'h': fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (!port || (!plan.group_count && !list && optind == argc)) {
        fputs(usage, stderr);
        exit(2);
    }
    if (list || optind < argc) {
        struct group *group = add_group(&plan, "all", threads);
        set_amount(group, amount);
        for (int each = optind; each < argc; each++)
            add_target(group, argv[each]);
        if (list)
            add_targets_from(group, list);
    }
    check(&plan);
    if (map)
        read_map(&plan, map, others_missing);
    resolve(&plan, host, port);
    return plan;
}
