"""The registry: processes of one user announce themselves, find each other by role, and choose among those found.

with announce("cache", queue_name="/my-queue") as announcement:
    announcement.beat(load=3)                            # now and then

members = Registry().find("cache")                       # in any process
with Registry().watch("cache") as watch:
    for change in watch.wait(Deadline.after(10)):
        print(change.kind, change.member.name)
"""

from shmchannel.registry.announcement import Announcement, Presence, announce
from shmchannel.registry.choice import (
    RendezvousTable,
    at_random,
    bounded,
    first_available,
    least_loaded,
    rendezvous_order,
    round_robin,
)
from shmchannel.registry.directory import Change, ChangeKind, Member, Registry, RoleWatch
from shmchannel.registry.entry_layout import Entry

__all__ = [
    "Announcement",
    "Change",
    "ChangeKind",
    "Entry",
    "Member",
    "Presence",
    "Registry",
    "RendezvousTable",
    "RoleWatch",
    "announce",
    "at_random",
    "bounded",
    "first_available",
    "least_loaded",
    "rendezvous_order",
    "round_robin",
]
