"""`webproxy purge`: removes objects from the cache, or invalidates them.

It needs no running proxy: it sends commands to the cache itself, on the queue named by the proxy's settings. A key is a
path, or a URL where Host selects the origin, and is normalised as the proxy normalises requests.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from shmchannel.daemonkit.exits import ExitCode, exit_code_of
from shmchannel.daemonkit.output import put_out
from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.sources import load, refuse
from shmchannel.deadline import Deadline
from shmchannel.errors import NameMissing, ResourceError, ShmChannelError
from shmchannel.objects.client import ChannelClient
from shmchannel.objects.commands import KEY_BYTES_MAX
from shmchannel.registry import Registry
from shmchannel.streams.pool import SegmentPool
from webproxy import version
from webproxy.daemon.config import ProxyConfig
from webproxy.http.urls import BadTarget, http_path, normalise_url, normalised_path

DAEMON = "webproxy"
PROG = f"{DAEMON} purge"
_SEGMENT_BYTES = 4096
_BEYOND = b"x"
"""Stands for the rest of a key while a prefix is normalised, so that `/a/.` is not taken for a dot segment."""
_DESCRIPTION = """\
Remove an object from the cache, with all its HTTP variants. Other settings come from the daemon's sources: WEBPROXY_
variables and the file."""
_KEY_HELP = """\
/PATH, or http://HOST/PATH if Host chooses the origin; with a final * (quoted: '/old/*'), all keys with that prefix"""
_EXIT_CODES = {ResourceError: ExitCode.CANNOT_START, ShmChannelError: ExitCode.FAILED}


class BadKey(Exception):
    """The argument cannot be a key of the cache; the text says what can."""


class _AsTyped(argparse.Action):
    """Keeps the flag as typed with its value, so that a refusal names what the operator wrote."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse hands it over
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (option_string, values))


class PurgeRequest(NamedTuple):
    """One command to the cache: for all keys that begin so, or for one key and what lies below it."""

    key: bytes
    prefix: bool


def orders_for(text: bytes) -> list[PurgeRequest]:
    """The commands that purge a key with its HTTP variants, or all keys with a prefix if `*` is at the end.

    A path has two normal forms where HTTP escapes what getfile takes literally: both are purged. Raises BadKey.
    """
    if text.endswith(b"*"):
        return [PurgeRequest(prefix, prefix=True) for prefix in _prefixes(text[:-1])]
    return [PurgeRequest(key, prefix=False) for key in _normal_forms(text)]


def _prefixes(text: bytes) -> list[bytes]:
    if not text:
        return [b""]
    if text.startswith(b"http://") and text.count(b"/") < 3:
        raise BadKey("the host of a prefix must be whole: http://HOST/*")
    return [form[: -len(_BEYOND)] for form in _normal_forms(text + _BEYOND)]


def _normal_forms(text: bytes) -> list[bytes]:
    if text.startswith(b"/"):
        forms = {normalised_path(text): None}
        try:
            forms[http_path(text)] = None
        except BadTarget:
            pass  # no HTTP request can name it, but getfile may
    elif text.startswith(b"http://"):
        try:
            forms = {normalise_url(text): None}
        except BadTarget as error:
            raise BadKey(str(error)) from error
    else:
        raise BadKey(f"{os.fsdecode(text)!r} is no key: write /PATH or http://HOST/PATH")
    if max(map(len, forms)) > KEY_BYTES_MAX:
        raise BadKey(f"a key has at most {KEY_BYTES_MAX} bytes")
    return list(forms)


def main(arguments: Sequence[str]) -> int:
    """Purge as the arguments after `purge` say, print the number of objects, and return the exit code.

    Raises SystemExit with 2, and prints the reason on standard error, for invalid arguments or settings.
    """
    given = parser().parse_args(arguments)
    try:
        orders = orders_for(os.fsencode(given.key))
    except BadKey as error:
        refuse(PROG, error)
    config = _config(given)
    try:
        count = purge(config, orders, soft=given.soft)
    except ShmChannelError as error:
        sys.stderr.write(f"{PROG}: {error}\n")
        return int(exit_code_of(error, _EXIT_CODES))
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    objects = "1 object" if count == 1 else f"{count} objects"
    put_out(PROG, f"{objects} {'marked stale' if given.soft else 'removed'}\n")  # it is done, whoever hears of it
    return int(ExitCode.OK)


def purge(config: ProxyConfig, orders: Sequence[PurgeRequest], *, soft: bool) -> int:
    """Send the commands to the configured caches; returns the number of objects they matched.

    With several caches all are told before an error of one of them is raised.

    Raises:
        ResourceError: there is no cache, or no shared memory for its answer.
        ShmChannelError: the cache died, or did not answer before the deadline.
    """
    count, failure = 0, None
    with ExitStack() as resources:
        pool = SegmentPool.create(1, _SEGMENT_BYTES)
        resources.callback(pool.close)
        for queue_name in _queue_names(config):
            client = ChannelClient(queue_name, pool)
            resources.callback(client.close)
            try:
                count += _purge_one(client, orders, Deadline.after(config.cache_timeout_s), soft=soft)
            except ShmChannelError as error:
                if isinstance(error, NameMissing):
                    error.hint = f"start simplecached -q {queue_name}"
                failure = failure or error
    if failure is not None:
        raise failure
    return count


def _purge_one(client: ChannelClient, orders: Sequence[PurgeRequest], deadline: Deadline, *, soft: bool) -> int:
    return sum(
        client.purge(order.key, deadline, prefix=order.prefix, below=not order.prefix, invalidate=soft)
        for order in orders
    )


def _queue_names(config: ProxyConfig) -> Sequence[str]:
    if not config.finds_caches:
        return config.caches or (config.queue_name,)
    names = [member.entry.queue_name for member in Registry().find("cache") if member.entry.queue_name]
    if not names:
        raise NameMissing("no cache of this user is announced", errno.ENOENT, hint="start simplecached", says_why=True)
    return names


def _config(given: argparse.Namespace) -> ProxyConfig:
    """The daemon's own settings: its file may hold any of them."""
    flags = [*given.queue, *given.caches, *(() if given.config is None else [f"--config={given.config}"])]
    try:
        config = load(ProxyConfig, prog=DAEMON, description=_DESCRIPTION, version=version, argv=flags).config
    except SettingError as error:
        refuse(DAEMON, error)
    return replace(config, caches=()) if given.queue and not given.caches else config


def parser() -> argparse.ArgumentParser:
    """The command line after `purge`."""
    found = argparse.ArgumentParser(prog=PROG, description=_DESCRIPTION, allow_abbrev=False)
    found.add_argument("key", metavar="KEY", help=_KEY_HELP)
    found.add_argument(
        "-q", "--queue", action=_AsTyped, default=(), metavar="NAME",
        help="name of the cache's command queue, if not the daemon's",
    )  # fmt: skip
    found.add_argument(
        "--caches", action=_AsTyped, default=(), metavar="auto|NAME,...",
        help="names of several caches' command queues, or auto for all of this user, if not the daemon's",
    )  # fmt: skip
    found.add_argument("--config", metavar="FILE", help="the daemon's file of settings")
    found.add_argument("--soft", action="store_true", help="invalidate the objects instead of removing them")
    return found
