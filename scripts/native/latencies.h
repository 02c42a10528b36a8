/* Latencies counted in buckets that are 1/128 wide of their value, up to a minute; the largest is kept as it is. */
#ifndef HTTPBLAST_LATENCIES_H
#define HTTPBLAST_LATENCIES_H

#include <stdint.h>

#define LATENCY_STEP_BITS 7
#define LATENCY_BUCKETS (32 << LATENCY_STEP_BITS)

struct latencies {
    uint64_t count, max_ns, buckets[LATENCY_BUCKETS];
};

void latencies_add(struct latencies *to, uint64_t ns);
void latencies_merge(struct latencies *to, const struct latencies *from);

/* The upper end of the bucket that at least `share` of all do not exceed, in microseconds; 0 without any. */
double latencies_percentile_us(const struct latencies *of, double share);

#endif
