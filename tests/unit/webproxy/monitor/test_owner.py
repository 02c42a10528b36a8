"""Which proxy a pid or a port names."""

from __future__ import annotations

import pytest

from shmchannel.process.identity import ProcessIdentity
from shmchannel.registry import Member
from shmchannel.registry.entry_layout import Entry
from webproxy.monitor.owner import owner_pid


def member(role: str, pid: int, address: str = "", announced_ns: int = 0, **facts: str) -> Member:
    identity = ProcessIdentity(pid, 1, 1)
    entry = Entry(role, str(pid), identity, announced_ns, 0, "", address, facts)
    return Member(entry, 0.0, 0, is_stuck=False)


MEMBERS = [
    member("supervisor", 10, "127.0.0.1:80"),
    member("proxy", 11, "127.0.0.1:80", announced_ns=5, slot="0", supervisor="10"),
    member("proxy", 12, "127.0.0.1:80", announced_ns=6, slot="1", supervisor="10"),
    member("proxy", 20, "[::1]:8080"),
    member("proxy", 8080, "127.0.0.1:81"),
    member("cache", 30),
    member("supervisor", 41, "127.0.0.1:90", announced_ns=2),
    member("supervisor", 40, "127.0.0.1:90", announced_ns=1),
]


@pytest.mark.parametrize(
    ("wanted", "pid"),
    [
        (10, 10),
        (12, 10),  # a worker's
        (80, 10),
        (20, 20),
        (8080, 8080),  # a pid rather than a port
        (81, 8080),
        (90, 41),  # the one that takes over
        (30, None),  # no proxy
        (0, None),  # not the end of 80
        (8, None),
    ],
)
def test_by_pid_or_port(wanted: int, pid: int | None) -> None:
    assert owner_pid(wanted, MEMBERS) == pid
