"""Command line of webproxy: arguments → config → run → exit code; with `purge` in front, another command."""

from __future__ import annotations

import logging
import sys

from shmchannel.daemonkit import logs
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.options import load_or_exit
from shmchannel.errors import ShmChannelError
from webproxy import app, purge_command, version
from webproxy.config import ProxyConfig
from webproxy.errors import WebProxyError

PROG = "webproxy"
log = logging.getLogger(__name__)


def main() -> int:
    """Run the daemon, or `webproxy purge`; returns the exit code."""
    if sys.argv[1:2] == ["purge"]:
        return purge_command.main(sys.argv[2:])
    loaded = load_or_exit(
        ProxyConfig,
        prog=PROG,
        description="The proxy daemon: answers clients from a cache and, what that lacks, from an origin. "
        "`webproxy purge --help`: removes objects from the cache.",
        version=version,
    )
    config = loaded.config
    if loaded.check_only:
        sys.stdout.write(loaded.describe() + "\n")
        return int(ExitCode.OK)
    logs.configure(config.log_level, prog=PROG, form=config.log_format)
    for warning in loaded.warnings:
        log.warning("setting ignored", extra={"reason": warning})
    try:
        return app.run(config)
    except (ShmChannelError, WebProxyError) as error:
        log.error("cannot start", extra={"reason": str(error)})
        return int(ExitCode.CANNOT_START)
    except OSError as error:  # what every start needs: descriptors, memory
        log.error("cannot start", extra={"reason": f"{error} (see ulimit -a)"})
        return int(ExitCode.CANNOT_START)
    except Exception:
        log.exception("failed")
        return int(ExitCode.SOFTWARE)
