/*
 * gfblast: getfile load from native threads, every reply checked.
 *
 * A load program in Python would be the bottleneck of what it measures. Several groups of threads may run at once, each
 * with its own figures, so that "12 clients of 10 MB while one asks for 8 KiB" is one run.
 *
 * cc -std=c11 -O2 -Wall -Wextra -pthread -o gfblast gfblast.c exchange.c plan.c reply.c
 * `gfblast -h` lists the options.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exchange.h"

#define BUFFER_BYTES (256 * 1024)
#define STACK_BYTES (256 * 1024)

struct tally {
    uint64_t requests, bytes, statuses[STATUS_COUNT], wires[WIRE_COUNT], failures[FAIL_COUNT], finished_ns;
    uint64_t *latencies_ns; /* of the right replies only */
    size_t latency_count, latency_room;
    char first_failure[256];
};

struct run { /* one group while it runs; `next` and `tallies` are its own */
    const struct group *group;
    atomic_uint_fast64_t next;
    struct tally *tallies;
};

struct thread {
    pthread_t id;
    struct run *run;
    struct tally *tally;
};

static struct plan plan;
static pthread_barrier_t start_line;
static uint64_t start_ns; /* written before the barrier, read after it */
static atomic_int stopping, measured_threads;

static void *must(void *memory)
{
    if (memory)
        return memory;
    fputs("gfblast: out of memory\n", stderr);
    exit(2);
}

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stopping, 1);
}

static void record(struct tally *tally, const struct target *target, const struct outcome *out, uint64_t took_ns)
{
    tally->requests++;
    tally->bytes += out->body_bytes;
    tally->failures[out->failure]++;
    if (out->has_reply) {
        tally->statuses[out->reply.status]++;
        tally->wires[out->reply.wire]++;
    }
    if (out->failure) {
        if (!tally->first_failure[0])
            snprintf(tally->first_failure, sizeof tally->first_failure, "%.100s: %s%s%s", target->path,
                     failure_names[out->failure], out->note[0] ? ": " : "", out->note);
        return;
    }
    if (tally->latency_count == tally->latency_room) {
        tally->latency_room = tally->latency_room ? tally->latency_room * 2 : 4096;
        tally->latencies_ns =
            must(reallocarray(tally->latencies_ns, tally->latency_room, sizeof *tally->latencies_ns));
    }
    tally->latencies_ns[tally->latency_count++] = took_ns;
}

/* Whether this thread has another request to make; counts it. */
static bool claim(struct run *run, uint64_t *index)
{
    const struct group *group = run->group;
    if (atomic_load_explicit(&stopping, memory_order_relaxed))
        return false;
    *index = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);
    switch (group->amount) {
    case AMOUNT_REQUESTS:
        return *index < group->requests;
    case AMOUNT_SECONDS:
        return now_ns() - start_ns < (uint64_t)(group->seconds * 1e9);
    default:
        return atomic_load(&measured_threads) > 0;
    }
}

static void *work(void *argument)
{
    struct thread *self = argument;
    const struct group *group = self->run->group;
    char *buffer = must(malloc(BUFFER_BYTES));
    uint64_t index;
    pthread_barrier_wait(&start_line);
    while (claim(self->run, &index)) {
        const struct target *target = &group->targets[index % group->target_count];
        uint64_t begin_ns = now_ns();
        struct outcome out = exchange(&plan, target, buffer, BUFFER_BYTES);
        record(self->tally, target, &out, now_ns() - begin_ns);
        if (out.failure == FAIL_CONNECT)
            usleep(1000); /* a dead server is not asked a million times a second */
    }
    self->tally->finished_ns = now_ns();
    if (group->amount != AMOUNT_WHILE)
        atomic_fetch_sub(&measured_threads, 1);
    free(buffer);
    return NULL;
}

static int by_value(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The smallest latency that at least `share` of all do not exceed, in milliseconds. */
static double percentile_ms(const struct tally *sum, double share)
{
    if (!sum->latency_count)
        return 0;
    size_t rank = (size_t)(share * (double)sum->latency_count);
    if ((double)rank < share * (double)sum->latency_count)
        rank++;
    return (double)sum->latencies_ns[rank ? rank - 1 : 0] / 1e6;
}

static struct tally added_up(const struct run *run)
{
    struct tally sum = {0};
    for (int t = 0; t < run->group->threads; t++)
        sum.latency_room += run->tallies[t].latency_count;
    sum.latencies_ns = must(malloc((sum.latency_room + 1) * sizeof *sum.latencies_ns));
    for (int t = 0; t < run->group->threads; t++) {
        struct tally *each = &run->tallies[t];
        sum.requests += each->requests;
        sum.bytes += each->bytes;
        for (int n = 0; n < STATUS_COUNT; n++)
            sum.statuses[n] += each->statuses[n];
        for (int n = 0; n < WIRE_COUNT; n++)
            sum.wires[n] += each->wires[n];
        for (int n = 0; n < FAIL_COUNT; n++)
            sum.failures[n] += each->failures[n];
        if (each->finished_ns > sum.finished_ns)
            sum.finished_ns = each->finished_ns;
        if (each->latency_count)
            memcpy(sum.latencies_ns + sum.latency_count, each->latencies_ns, each->latency_count * sizeof(uint64_t));
        sum.latency_count += each->latency_count;
        if (!sum.first_failure[0])
            memcpy(sum.first_failure, each->first_failure, sizeof sum.first_failure);
        free(each->latencies_ns);
    }
    qsort(sum.latencies_ns, sum.latency_count, sizeof *sum.latencies_ns, by_value);
    return sum;
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < 0x20 || byte > 0x7e)
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

static void print_counts(const char *key, const char *const *names, const uint64_t *counts, int from, int to)
{
    const char *comma = "";
    printf(",\"%s\":{", key);
    for (int n = from; n < to; n++) {
        if (!counts[n])
            continue;
        printf("%s\"%s\":%" PRIu64, comma, names[n], counts[n]);
        comma = ",";
    }
    putchar('}');
}

/* Print one group's figures. True when every reply was right and there was one. */
static bool report(const struct run *run)
{
    struct tally sum = added_up(run);
    double seconds = (double)(sum.finished_ns - start_ns) / 1e9;
    fputs("{\"name\":", stdout);
    print_text(run->group->name);
    printf(",\"threads\":%d,\"requests\":%" PRIu64 ",\"right\":%zu,\"bytes\":%" PRIu64 ",\"seconds\":%.6f",
           run->group->threads, sum.requests, sum.latency_count, sum.bytes, seconds);
    printf(",\"requests_per_s\":%.3f,\"megabytes_per_s\":%.3f", (double)sum.latency_count / seconds,
           (double)sum.bytes / 1e6 / seconds);
    printf(",\"latency_ms\":{\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"p99.9\":%.4f,\"max\":%.4f}",
           percentile_ms(&sum, 0.5), percentile_ms(&sum, 0.9), percentile_ms(&sum, 0.99), percentile_ms(&sum, 0.999),
           percentile_ms(&sum, 1));
    print_counts("statuses", status_names, sum.statuses, 0, STATUS_COUNT);
    print_counts("wires", wire_names, sum.wires, 0, WIRE_COUNT);
    print_counts("failures", failure_names, sum.failures, FAIL_NONE + 1, FAIL_COUNT);
    fputs(",\"first_failure\":", stdout);
    sum.first_failure[0] ? print_text(sum.first_failure) : (void)fputs("null", stdout);
    putchar('}');
    free(sum.latencies_ns);
    return sum.requests > 0 && sum.latency_count == sum.requests;
}

static void run_all(struct run *runs)
{
    unsigned count = 0, started = 0;
    pthread_attr_t small_stack;
    for (size_t g = 0; g < plan.group_count; g++) {
        runs[g].group = &plan.groups[g];
        runs[g].tallies = must(calloc((size_t)plan.groups[g].threads, sizeof *runs[g].tallies));
        count += (unsigned)plan.groups[g].threads;
        if (plan.groups[g].amount != AMOUNT_WHILE)
            atomic_fetch_add(&measured_threads, plan.groups[g].threads);
    }
    struct thread *threads = must(calloc(count, sizeof *threads));
    pthread_barrier_init(&start_line, NULL, count + 1);
    pthread_attr_init(&small_stack);
    pthread_attr_setstacksize(&small_stack, STACK_BYTES);
    for (size_t g = 0; g < plan.group_count; g++)
        for (int t = 0; t < plan.groups[g].threads; t++, started++) {
            threads[started] = (struct thread){.run = &runs[g], .tally = &runs[g].tallies[t]};
            if (pthread_create(&threads[started].id, &small_stack, work, &threads[started]) != 0) {
                fprintf(stderr, "gfblast: cannot start thread %u of %u; ask for fewer\n", started + 1, count);
                exit(2);
            }
        }
    start_ns = now_ns();
    pthread_barrier_wait(&start_line);
    for (unsigned t = 0; t < count; t++)
        pthread_join(threads[t].id, NULL);
    free(threads);
}

int main(int argc, char **argv)
{
    plan = plan_from_arguments(argc, argv);
    struct sigaction stop = {.sa_handler = on_signal};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    struct run *runs = must(calloc(plan.group_count, sizeof *runs));
    run_all(runs);
    bool all_right = true;
    fputs("{\"groups\":[", stdout);
    for (size_t g = 0; g < plan.group_count; g++) {
        if (g)
            putchar(',');
        all_right &= report(&runs[g]);
    }
    printf("],\"all_right\":%s}\n", all_right ? "true" : "false");
    if (fflush(stdout) != 0)
        return 2;
    return all_right && !atomic_load(&stopping) ? 0 : 1;
}
