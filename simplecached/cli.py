"""Command line of simplecached: arguments → config → run → exit code."""

from __future__ import annotations

import logging
import sys

from shmchannel.daemonkit import logs
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.options import load_or_exit, refuse
from shmchannel.errors import NameTaken, ShmChannelError
from simplecached import app, version
from simplecached.config import CacheConfig
from simplecached.errors import ConfigError, SimpleCachedError

PROG = "simplecached"
log = logging.getLogger(__name__)


def main() -> int:
    """Run the daemon; returns its exit code."""
    loaded = load_or_exit(
        CacheConfig,
        prog=PROG,
        description="The cache daemon: holds the bytes that webproxy serves.",
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
    except ConfigError as error:
        refuse(PROG, error)
    except NameTaken as error:
        log.error("cannot start", extra={"reason": str(error)})
        return int(ExitCode.LOCK_HELD)
    except (ShmChannelError, SimpleCachedError) as error:
        log.error("cannot start", extra={"reason": str(error)})
        return int(ExitCode.CANNOT_START)
    except OSError as error:  # what every start needs: descriptors, memory
        log.error("cannot start", extra={"reason": f"{error} (see ulimit -a)"})
        return int(ExitCode.CANNOT_START)
    except Exception:
        log.exception("failed")
        return int(ExitCode.SOFTWARE)
