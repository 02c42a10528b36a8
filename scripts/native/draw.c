/* Objects at random; see draw.h. */
#include "draw.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct draw {
    uint64_t count;
    bool by_rank;
    double cumulated[]; /* share of the objects up to and with this one; empty if all are as likely */
};

struct draw *draw_made(uint64_t count, double alpha)
{
    struct draw *draw = malloc(sizeof *draw + (alpha > 0 ? count * sizeof(double) : 0));
    double sum = 0;
    if (!draw)
        return NULL;
    draw->count = count;
    draw->by_rank = alpha > 0;
    if (draw->by_rank) {
        for (uint64_t n = 0; n < count; n++)
            draw->cumulated[n] = sum += pow((double)(n + 1), -alpha);
        for (uint64_t n = 0; n < count; n++)
            draw->cumulated[n] /= sum;
    }
    return draw;
}

static uint64_t random_bits(uint64_t *state) /* xorshift64* by Marsaglia and Vigna */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t draw_next(const struct draw *draw, uint64_t *random)
{
    double share = (double)(random_bits(random) >> 11) / 9007199254740992.0; /* 53 bits: below 1 */
    if (!draw->by_rank)
        return (uint64_t)(share * (double)draw->count);
    uint64_t low = 0, high = draw->count - 1;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (draw->cumulated[middle] > share)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
