"""Which proxy is looked at: one that an operator names by a pid or by the port that it listens on."""

from __future__ import annotations

from collections.abc import Iterable

from shmchannel.registry import Member

_PROXY, _SUPERVISOR = "proxy", "supervisor"


def owner_pid(wanted: int, members: Iterable[Member]) -> int | None:
    """The pid of the proxy's main process: `wanted` is that, the pid of one of its workers, or its port.

    A pid is preferred to a port. While a proxy is upgraded there are two on one port: the newer one is meant. None:
    there is no such proxy.
    """
    known = [member for member in members if member.entry.role in (_PROXY, _SUPERVISOR)]
    for member in known:
        if member.identity.pid == wanted:
            return int(member.entry.facts.get(_SUPERVISOR, wanted))
    listening = [
        member
        for member in known
        if member.entry.address.endswith(f":{wanted}") and _SUPERVISOR not in member.entry.facts
    ]
    newest = max(listening, key=lambda member: member.entry.announced_ns, default=None)
    return None if newest is None else newest.identity.pid
