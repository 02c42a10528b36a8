"""Clients of `scripts/soak` that take their time: they read or send slowly, pause, keep connections, wait in vain.

Every byte that comes is checked. A client that is told to end leaves wherever it is.
"""

import json
import random
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException

from scripts.stress.checked import CUT, HANG, MANY, NO_ANSWER, WHOLE, WRONG, stored_target
from scripts.stress.clients import Performed
from scripts.stress.exchange import Asked, Exchange
from scripts.stress.mixed import LEFT, SILENT_KIND
from scripts.stress.origin import content

_HANG_S = 90.0
_SILENCE_S = 8.0
"""Longest patience with an origin that is silent; longer than the proxy's is in a soak."""


class _Leaves(Exception):
    """No error: the client leaves in the middle of its upload."""


class SlowClients:
    """What slow clients of one port do, until `ending` is set."""

    def __init__(self, port: int, ending: threading.Event) -> None:
        self._port = port
        self._ending = ending

    def perform(self, choice: random.Random) -> Performed:
        """Be one slow client. Blocks for some seconds, or until the end. Never raises."""
        kinds = (self._sip, self._stop_and_go, self._upload, self._keep_alive, self._wait_in_vain)
        be: Callable[[random.Random], Performed] = choice.choices(kinds, (4, 3, 4, 3, 2))[0]
        return be(choice)

    def _sip(self, choice: random.Random) -> Performed:
        """Read a little at a time."""
        piece, pause_s = choice.choice((4_000, 50_000, 300_000)), choice.uniform(0.01, 0.2)
        pieces_max = choice.choice((20, 10**6))
        return self._read("slow reader", choice, lambda number: (piece, pause_s) if number < pieces_max else None)

    def _stop_and_go(self, choice: random.Random) -> Performed:
        """Read the beginning, stop for some time, read the rest."""
        first, pause_s = choice.choice((0, 1_000, 600_000)), choice.uniform(0.3, 6.0)
        return self._read("reader that stops", choice, lambda number: None if number else (first, pause_s))

    def _read(self, kind: str, choice: random.Random, step: Callable[[int], tuple[int, float] | None]) -> Performed:
        """Read so many bytes and pause so many seconds in each step, then the rest at once."""
        target = choice.choice(
            (stored_target(choice), f"/four?{choice.randrange(4)}", f"/slow24?{choice.randrange(3)}")
        )
        asked = Asked(target=target, getfile=choice.random() < 0.4)
        wanted = content(target)
        outcome, body = LEFT, bytearray()
        number = 0
        try:
            with Exchange(self._port, asked, _HANG_S) as exchange:
                if exchange.status != 200:
                    return Performed(kind, target, f"status {exchange.status}")
                body = exchange.body
                while (now := step(number)) is not None and len(body) < len(wanted) and not self._ending.is_set():
                    exchange.read(len(body) + now[0])
                    self._ending.wait(now[1])
                    number += 1
                while len(body) < len(wanted) and not self._ending.is_set():
                    before = len(body)
                    exchange.read(before + 1)
                    if len(body) == before:
                        return Performed(kind, target, CUT)
                if len(body) >= len(wanted):
                    outcome = WHOLE
        except TimeoutError:
            outcome = HANG
        except (OSError, EOFError):
            outcome = CUT if body else NO_ANSWER
        return Performed(kind, f"{asked}", outcome if wanted.startswith(bytes(body)) else WRONG)

    def _upload(self, choice: random.Random) -> Performed:
        """Send a body in pieces, some of it or all."""
        kind = "slow upload"
        pieces = [choice.randbytes(choice.choice((1, 200, 20_000))) for _ in range(choice.randrange(1, 25))]
        leaves_after = choice.choice((None, None, choice.randrange(len(pieces))))
        pause_s = choice.uniform(0.01, 0.3)

        def body() -> Iterator[bytes]:
            for number, piece in enumerate(pieces):
                if number == leaves_after or self._ending.is_set():
                    raise _Leaves
                yield piece
                self._ending.wait(pause_s)

        sent = b"".join(pieces)
        fields = choice.choice(((), (("Content-Length", str(len(sent))),)))
        asked = Asked(target=f"/upload?{choice.randrange(MANY)}", method="PUT", body=body(), fields=fields)
        try:
            with Exchange(self._port, asked, _HANG_S) as exchange:
                exchange.read()
                if exchange.status != 200:
                    return Performed(kind, asked.target, f"status {exchange.status}")
                echoed = json.loads(bytes(exchange.body))["body"].encode("latin-1")
                return Performed(kind, asked.target, WHOLE if echoed == sent else WRONG)
        except _Leaves:
            return Performed(kind, asked.target, LEFT)
        except TimeoutError:
            return Performed(kind, asked.target, HANG)
        except ValueError:
            return Performed(kind, asked.target, WRONG)
        except (OSError, EOFError):
            return Performed(kind, asked.target, NO_ANSWER)

    def _keep_alive(self, choice: random.Random) -> Performed:
        """Several requests on one connection, with pauses between them and behind the last."""
        kind = "kept connection"
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_HANG_S)
        target = ""
        try:
            for _ in range(choice.randrange(1, 6)):
                target = stored_target(choice)
                connection.request("GET", target)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    return Performed(kind, target, f"status {response.status}")
                if body != content(target):
                    return Performed(kind, target, WRONG)
                if self._ending.wait(choice.uniform(0.01, 3.0)):
                    break
        except TimeoutError:
            return Performed(kind, target, HANG)
        except (OSError, HTTPException):
            return Performed(kind, target, NO_ANSWER)
        finally:
            connection.close()
        return Performed(kind, target, WHOLE)

    def _wait_in_vain(self, choice: random.Random) -> Performed:
        """Ask for what the origin does not answer, and leave or be refused."""
        target = f"/silent?{choice.choice((0, choice.randrange(MANY)))}"
        fields = choice.choice(((), (("Cache-Control", "no-store"),)))
        method = choice.choice(("GET", "GET", "HEAD"))
        asked = Asked(target=target, method=method, fields=fields, getfile=choice.random() < 0.3)
        patience_s = choice.uniform(0.05, _SILENCE_S)
        try:
            with Exchange(self._port, asked, patience_s) as exchange:
                return Performed(SILENT_KIND, f"{asked}", f"status {exchange.status}")
        except TimeoutError:
            return Performed(SILENT_KIND, f"{asked}", LEFT)
        except (OSError, EOFError):
            return Performed(SILENT_KIND, f"{asked}", NO_ANSWER)
