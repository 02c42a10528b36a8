"""Command line of simplecached: the declaration of the daemon for `run_daemon`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmchannel.daemonkit.daemon import Daemon, parser_of, run_daemon
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.errors import NameTaken, ShmChannelError
from simplecached import version
from simplecached.daemon.app import CacheService, shortages
from simplecached.daemon.config import CacheConfig
from simplecached.errors import ConfigError, SimpleCachedError

if TYPE_CHECKING:
    import argparse

DAEMON = Daemon(
    prog="simplecached",
    description="The cache daemon: stores the objects that webproxy serves.",
    version=version,
    config_type=CacheConfig,
    build=CacheService,
    shortages=shortages,
    exit_codes={
        ConfigError: ExitCode.USAGE,
        NameTaken: ExitCode.LOCK_HELD,
        ShmChannelError: ExitCode.CANNOT_START,
        SimpleCachedError: ExitCode.CANNOT_START,
    },
)


def command_lines() -> tuple[argparse.ArgumentParser]:
    """The command line, for what is generated from it."""
    return (parser_of(DAEMON),)


def main() -> int:
    """Run the daemon; return the exit code."""
    return run_daemon(DAEMON)
