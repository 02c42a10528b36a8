/* A histogram; see latencies.h. Values below 128 ns have a bucket each; above, each power of two has 128. */
#include "latencies.h"

#define STEPS (UINT64_C(1) << LATENCY_STEP_BITS)

void latencies_add(struct latencies *to, uint64_t ns)
{
    unsigned shift = ns < STEPS ? 0 : 63 - (unsigned)__builtin_clzll(ns) - LATENCY_STEP_BITS;
    uint64_t bucket = ns < STEPS ? ns : ((uint64_t)(shift + 1) << LATENCY_STEP_BITS) + ((ns >> shift) - STEPS);
    to->buckets[bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
    to->count++;
    if (ns > to->max_ns)
        to->max_ns = ns;
}

void latencies_merge(struct latencies *to, const struct latencies *from)
{
    for (int n = 0; n < LATENCY_BUCKETS; n++)
        to->buckets[n] += from->buckets[n];
    to->count += from->count;
    if (from->max_ns > to->max_ns)
        to->max_ns = from->max_ns;
}

static uint64_t upper_end_ns(uint64_t bucket)
{
    uint64_t power = bucket >> LATENCY_STEP_BITS;
    return power == 0 ? bucket : ((STEPS + (bucket & (STEPS - 1)) + 1) << (power - 1)) - 1;
}

double latencies_percentile_us(const struct latencies *of, double share)
{
    uint64_t passed = 0;
    for (uint64_t bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
        passed += of->buckets[bucket];
        if (passed && (double)passed >= share * (double)of->count) {
            uint64_t end_ns = upper_end_ns(bucket);
            return (double)(end_ns < of->max_ns ? end_ns : of->max_ns) / 1e3;
        }
    }
    return 0;
}
