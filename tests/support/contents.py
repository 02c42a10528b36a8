"""Files with contents that a mix-up cannot hide: each name has bytes of its own, the same at every call."""

import functools
import os
import random
from collections.abc import Mapping


@functools.lru_cache(maxsize=64)
def body_of(name: str, size: int) -> bytes:
    """The bytes of the file `name` when it is `size` bytes long."""
    return random.Random(f"{name} {size}").randbytes(size)


def write_files(directory: str | os.PathLike[str], sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Make a file for each name; returns the bodies by request path."""
    os.makedirs(directory, exist_ok=True)
    bodies = {}
    for name, size in sizes.items():
        body = bodies[f"/{name}"] = body_of(name, size)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(body)
    return bodies
