"""`python -m workloads.origin_stub --root DIR [--port N]`: prints its URL, serves until SIGINT or SIGTERM."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence

from workloads.origin_stub.route import Framing, Route
from workloads.origin_stub.server import OriginStub


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a folder; returns 0 when ended by a signal, 2 when the folder or the address cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m workloads.origin_stub", description="A scripted HTTP origin.")
    parser.add_argument("--root", required=True, metavar="DIR", help="folder to serve")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--delay-s", type=float, default=0.0, help="seconds before each response")
    parser.add_argument("--drip-bytes-per-s", type=float, help="send no faster than this")
    parser.add_argument("--framing", choices=[framing.value for framing in Framing], default=Framing.LENGTH.value)
    parser.add_argument("--no-ranges", action="store_true", help="ignore Range and send everything")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE", help="add to each response")
    arguments = parser.parse_args(argv)
    template = Route(
        delay_s=arguments.delay_s,
        drip_bytes_per_s=arguments.drip_bytes_per_s,
        framing=Framing(arguments.framing),
        ranges=not arguments.no_ranges,
        headers=[_header(parser, text) for text in arguments.header],
    )
    ending = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # before the threads, which inherit it
    try:
        with OriginStub(arguments.root, template=template, host=arguments.host, port=arguments.port) as origin:
            print(origin.url, flush=True)
            signal.sigwait(ending)
            print(f"{len(origin.requests)} requests", flush=True)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            where = f"{arguments.host} port {arguments.port}"
            print(f"origin_stub: {where}: {os.strerror(error.errno)} (choose another --port)", file=sys.stderr)
        else:
            print(f"origin_stub: {error}", file=sys.stderr)
        return 2
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _header(parser: argparse.ArgumentParser, text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        parser.error(f"--header {text!r}: write NAME: VALUE")
    return name.strip(), value.strip()


if __name__ == "__main__":
    sys.exit(main())
