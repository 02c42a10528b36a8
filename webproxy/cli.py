"""Command line of webproxy: the daemon's declaration for `run_daemon`, and the commands beside it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from shmchannel.daemonkit.daemon import Daemon, Service, parser_of, run_daemon
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.signals import let_through
from shmchannel.errors import ShmChannelError
from webproxy import version
from webproxy.daemon import purge_command, steering_command
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.handover import predecessor_told
from webproxy.daemon.supervisor import run_workers
from webproxy.errors import WebProxyError


def _build(config: ProxyConfig, resources: ExitStack) -> Service:
    # Imported here: a supervisor serves nobody, and starts its workers sooner without what only they need.
    from webproxy.daemon import assembly

    return assembly.build(config, resources)


def _shortages(config: ProxyConfig) -> Sequence[str]:
    from webproxy.daemon import assembly

    return assembly.shortages(config)


DAEMON = Daemon(
    prog="webproxy",
    description="The proxy daemon: serves clients from the cache, and from the origin on a miss."
    " Commands: `webproxy purge` (objects from the cache), `webproxy reload` (the settings), `webproxy upgrade` (the"
    " program), `webproxy install-units` (units of systemd, man pages, completions); each has --help.",
    version=version,
    config_type=ProxyConfig,
    build=_build,
    shortages=_shortages,
    supervise=run_workers,
    changes=frozenset(
        (
            "cache found",
            "cache lost",
            "cache not found",
            "cache does not answer",
            "cache answers again",
            "cache joined",
            "cache of another user",
            "cache of another version",
            "worker ready",
            "worker ended",
            "worker killed",
            "worker cannot start",
            "worker retired",
            "reloading",
            "reloaded",
            "reload refused",
            "successor started",
            "successor ready",
            "successor refused",
            "wish deferred",
            "origin fails, not asked for now",
            "origin still fails",
            "origin answers again",
        )
    ),
    exit_codes={ShmChannelError: ExitCode.CANNOT_START, WebProxyError: ExitCode.CANNOT_START},
)


def command_lines() -> Sequence[argparse.ArgumentParser]:
    """The command line and those of the commands beside it, for what is generated from them."""
    from webproxy.daemon import install_command  # needed only here and for that command

    steering = [steering_command.parser(command) for command in steering_command.COMMANDS]
    return parser_of(DAEMON), purge_command.parser(), *steering, install_command.parser()


_COMMANDS = ("purge", "install-units", *steering_command.COMMANDS)


def main() -> int:
    """Run the daemon, or one of the commands beside it; return the exit code."""
    command, arguments = "".join(sys.argv[1:2]), sys.argv[2:]
    if command not in _COMMANDS:
        return run_daemon(replace(DAEMON, on_refusal=predecessor_told()))
    let_through()
    if command == "purge":
        return purge_command.main(arguments)
    if command == "install-units":
        from webproxy.daemon import install_command

        return install_command.main(arguments)
    return steering_command.main(command, arguments)
