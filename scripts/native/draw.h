/* Which object of a set is asked for next: each as likely, or by Zipf's law, from a table made before. */
#ifndef HTTPBLAST_DRAW_H
#define HTTPBLAST_DRAW_H

#include <stdint.h>

struct draw;

/* For `count` objects. Object n has a weight of 1 / (n + 1)^alpha; with an alpha of 0 all are as likely. NULL: memory. */
struct draw *draw_made(uint64_t count, double alpha);

/* The number of an object, from 0. `random` is the caller's state, which must not be 0. */
uint64_t draw_next(const struct draw *draw, uint64_t *random);

#endif
