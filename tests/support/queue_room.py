"""Room for message queues: the kernel counts them by user, so a test shares its nine with all that this user runs.

No file says how much of the limit is used. The kernel does, when it is asked for a queue of one byte under a soft limit
lowered by what the test is about to take. Asking uses next to nothing; a probe of full size would for a moment take
the room from another worker that has just been promised it.
"""

import os
import resource

import posix_ipc

from shmchannel.messages.posix_queue import MESSAGE_BYTES_MAX, MESSAGES_MAX
from shmchannel.process.reaper import survey
from tests.support.waiting import WATCHDOG_S, wait_until

_NODE_BYTES = 96
"""The kernel's charge for each message that a queue may hold, beside its bytes (mq_getsetattr(3), NOTES)."""
_QUEUE_BYTES = MESSAGES_MAX * (MESSAGE_BYTES_MAX + _NODE_BYTES)
_QUEUES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
"""What is waited for: as many may be promised to the other workers at the same moment."""


def wait_for_queue_room(watchdog_s: float = WATCHDOG_S) -> None:
    """Wait until this test may make one more queue, however many tests beside it are told the same now."""
    if not _has_room():
        limit = f"{resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]:,} bytes a user (RLIMIT_MSGQUEUE)"
        wait_until(
            _has_room, watchdog_s, what=f"room for {_QUEUES} message queues within {limit}, used by {_holders()}"
        )


def _holders() -> str:
    found = [f"{row.name} of process {row.owner_pid}" for row in survey() if row.kind == "queue"]
    return ", ".join(found) or "none of ours in this namespace"


def _has_room() -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    if soft == resource.RLIM_INFINITY:
        return True
    name = f"/gft-{os.getpid()}-room"
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (max(0, soft - _QUEUES * _QUEUE_BYTES), hard))
    try:
        posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=1, max_message_size=1).close()
    except OSError:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))
    posix_ipc.unlink_message_queue(name)
    return True
