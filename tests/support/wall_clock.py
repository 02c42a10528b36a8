"""A wall clock that is set back, for one process at a time: the machine's own stays as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.programs import require_program

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mqueue.h>
#include <time.h>

/* An absolute moment that the caller has just computed lies further off when the clock is set back then. */
static struct timespec later(const struct timespec *moment) {
    struct timespec moved = *moment;
    if (moved.tv_sec)
        moved.tv_sec += SET_BACK_SECONDS;
    return moved;
}

ssize_t mq_timedreceive(mqd_t queue, char *room, size_t bytes, unsigned *priority, const struct timespec *until) {
    ssize_t (*real)(mqd_t, char *, size_t, unsigned *, const struct timespec *) = dlsym(RTLD_NEXT, "mq_timedreceive");
    struct timespec moved = later(until);
    return real(queue, room, bytes, priority, &moved);
}

int mq_timedsend(mqd_t queue, const char *message, size_t bytes, unsigned priority, const struct timespec *until) {
    int (*real)(mqd_t, const char *, size_t, unsigned, const struct timespec *) = dlsym(RTLD_NEXT, "mq_timedsend");
    struct timespec moved = later(until);
    return real(queue, message, bytes, priority, &moved);
}
"""


def set_back(directory: Path, seconds: int = 3600) -> dict[str, str]:
    """The environment of a process whose wall clock is set back in the middle of each wait on a message queue."""
    library = directory / "wall_clock.so"
    subprocess.run(
        [require_program("cc"), "-shared", "-fPIC", f"-DSET_BACK_SECONDS={seconds}", "-xc", "-", "-o", library, "-ldl"],
        input=_SOURCE, text=True, check=True,
    )  # fmt: skip
    return {"LD_PRELOAD": str(library)}
