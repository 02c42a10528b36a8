"""PURE: what the scripted origin holds, so that every client can check every byte without asking anybody."""

import hashlib
import random
from functools import lru_cache


@lru_cache(maxsize=64)
def body_of(target: str, size: int) -> bytes:
    """The object behind a request target: `size` bytes that no other target has, nor another place of this one."""
    return random.Random(target).randbytes(size)


def etag_of(target: str, size: int) -> str:
    """Its strong validator."""
    return f'"{hashlib.sha256(f"{size} {target}".encode()).hexdigest()[:16]}"'
