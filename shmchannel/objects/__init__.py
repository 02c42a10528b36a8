"""The cache protocol: commands that name objects, both ends of them, and the hot table."""

from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import (
    INVALIDATE,
    KEY_BYTES_MAX,
    LEASE,
    METADATA_BYTES_MAX,
    METADATA_WANTED,
    PREFIX,
    Command,
    CommandKind,
    FetchLease,
    Priority,
)
from shmchannel.objects.hot_table_files import HotTableFile
from shmchannel.objects.hot_table_layout import HotTableEntry
from shmchannel.objects.hot_table_reader import EntryVersion, HotTableReader
from shmchannel.objects.hot_table_writer import HotTableWriter
from shmchannel.objects.server import ChannelServer, Handler
from shmchannel.objects.transfers import IncomingTransfer, OutgoingTransfer

__all__ = [
    "INVALIDATE",
    "KEY_BYTES_MAX",
    "LEASE",
    "METADATA_BYTES_MAX",
    "METADATA_WANTED",
    "PREFIX",
    "ChannelClient",
    "ChannelServer",
    "Command",
    "CommandKind",
    "EntryVersion",
    "FetchLease",
    "Handler",
    "HotTableEntry",
    "HotTableFile",
    "HotTableReader",
    "HotTableWriter",
    "IncomingTransfer",
    "OutgoingTransfer",
    "Priority",
]
