"""`scripts/chaos`: kills (SIGKILL) and stops (SIGSTOP) both daemons at random under clients that check every byte.

What is done to the daemons, in which order and for how long, follows from the seed, which is printed. The origin stays,
and is faulty on some paths. Exit status 1 on any wrong byte or hang, a request that a living proxy leaves without an
answer, or a name that is left.
"""

import argparse
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.benchmark.report import aligned
from scripts.daemons import Daemon, DaemonFailed, PairOptions, interrupt_on_ending_signals
from scripts.stress.checked import CUT, HANG, NO_ANSWER, NO_CONNECTION, WHOLE, WRONG, any_request, outcome_of
from scripts.stress.clients import Client, Perform, Performed, Record, running_clients
from scripts.stress.helper import HelperFailed
from scripts.stress.rig import Rig, kill, raise_descriptor_limit, running_rig, send_signal

_EXIT_INTERRUPTED = 130
_PAUSE_WITHOUT_PROXY_S = 0.05
_BETWEEN_S = (0.2, 2.0)
_STOPPED_S = (0.05, 3.0)  # longer than the time limit for the first byte from a cache
_DOWN_S = (0.0, 0.5)
_CUT_ALIVE = "cut, proxy alive"
_NO_ANSWER_ALIVE = "NO ANSWER, PROXY ALIVE"
_COLUMNS = (WHOLE, CUT, _CUT_ALIVE, NO_ANSWER, NO_CONNECTION, "status 5xx", _NO_ANSWER_ALIVE, HANG, WRONG)
MUST_NOT_BE = (_NO_ANSWER_ALIVE, HANG, WRONG)
_SERVES_AGAIN_S = 20.0


@dataclass(slots=True)
class ProxyLife:
    """How often the proxy began to die and was started again; the supervisor counts, the clients compare."""

    deaths: int = 0
    starts: int = 0

    @property
    def now(self) -> tuple[int, bool]:
        """The number of its lives, and whether it is alive."""
        deaths = self.deaths
        return deaths, deaths == self.starts


_DURING_A_LIFE = {CUT: _CUT_ALIVE, NO_ANSWER: _NO_ANSWER_ALIVE}


def _performer(port: int, life: ProxyLife, hang_s: float, ending: threading.Event) -> Perform:
    """One request after the other; what happens within one life of the proxy has no excuse."""

    def perform(choice: random.Random) -> Performed:
        checked = any_request(choice)
        before = life.now
        outcome = outcome_of(port, checked, hang_s)
        if before[1] and before == life.now:
            outcome = _DURING_A_LIFE.get(outcome, outcome)
        if outcome == NO_CONNECTION:
            ending.wait(_PAUSE_WITHOUT_PROXY_S)
        return Performed(checked.kind, checked.as_text, outcome)

    return perform


class Supervisor:
    """Does harm to the daemons of a rig, and starts them again."""

    def __init__(self, rig: Rig, seed: int, stores: Sequence[str]) -> None:
        self._rig = rig
        self._choice = random.Random(seed)
        self._stores = stores
        self.done: Counter[str] = Counter()
        self.proxy_life = ProxyLife()

    def harm_until(self, end: float) -> None:
        """Block until that time of the monotonic clock; both daemons run then."""
        while time.monotonic() < end:
            time.sleep(self._choice.uniform(*_BETWEEN_S))
            harm = self._choice.choices(
                (self._kill_cache, self._kill_proxy, self._stop_cache, self._stop_proxy, self._kill_both),
                (4, 2, 4, 2, 1),
            )
            harm[0]()

    def _kill_cache(self) -> None:
        self.done["cache killed"] += 1
        kill(self._rig.cache)
        self._down()
        self._start_cache()

    def _kill_proxy(self) -> None:
        self.done["proxy killed"] += 1
        self.proxy_life.deaths += 1
        kill(self._rig.proxy)
        self._down()
        self._start_proxy()

    def _kill_both(self) -> None:
        self.done["both killed"] += 1
        self.proxy_life.deaths += 1
        kill(self._rig.cache)
        kill(self._rig.proxy)
        self._down()
        self._start_proxy()
        self._start_cache()

    def _stop_cache(self) -> None:
        self.done["cache stopped"] += 1
        self._stop(self._rig.cache)

    def _stop_proxy(self) -> None:
        self.done["proxy stopped"] += 1
        self._stop(self._rig.proxy)

    def _stop(self, daemon: Daemon) -> None:
        send_signal(daemon, signal.SIGSTOP)
        time.sleep(self._choice.uniform(*_STOPPED_S))
        send_signal(daemon, signal.SIGCONT)

    def _down(self) -> None:
        time.sleep(self._choice.uniform(*_DOWN_S))

    def _start_proxy(self) -> None:
        self._rig.start_proxy()
        self.proxy_life.starts += 1

    def _start_cache(self) -> None:
        self._rig.start_cache(store=self._choice.choice(self._stores))


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a run."""

    record: Record
    done: Counter[str]
    left: list[str]
    tracebacks: int
    serves_again: bool

    @property
    def holds(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.record.details or self.left) and self.serves_again


def run(seed: int, seconds: float, clients: int, hang_s: float, directory: str) -> Outcome:
    """Run the rig, the clients and the supervisor. Blocks. Raises DaemonFailed, HelperFailed."""
    store = os.path.join(directory, "store")
    os.mkdir(store)
    record, ending = Record(MUST_NOT_BE), threading.Event()
    with running_rig(directory, PairOptions(), "gfchaos") as rig:
        supervisor = Supervisor(rig, seed, ("memory", store))
        life = supervisor.proxy_life
        perform = _performer(rig.port, life, hang_s, ending)
        crew = [Client(f"{seed}-{number}", perform, record, ending) for number in range(clients)]
        with running_clients(crew, ending):
            supervisor.harm_until(time.monotonic() + seconds)
        serves_again = _serves_again(rig.port, seed)
    tracebacks = rig.logs().count("Traceback (most recent call last)")
    return Outcome(record=record, done=supervisor.done, left=rig.left, tracebacks=tracebacks, serves_again=serves_again)


def _serves_again(port: int, seed: int) -> bool:
    """Whether requests of all kinds come whole again, soon after the last harm."""
    give_up = time.monotonic() + _SERVES_AGAIN_S
    choice = random.Random(f"{seed}-after")
    in_turn = 0
    while in_turn < 10 and time.monotonic() < give_up:
        checked = any_request(choice)
        if checked.kind == "miss, faulty origin":
            continue
        in_turn = in_turn + 1 if outcome_of(port, checked, _SERVES_AGAIN_S) == WHOLE else 0
    return in_turn == 10


def as_text(outcome: Outcome) -> str:
    """The counts by kind of request, what was done, and the verdict."""
    rows: list[tuple[str, ...]] = [("request", *_COLUMNS, "slowest")]
    for kind, counts in sorted(outcome.record.outcomes.items()):
        slowest = f"{outcome.record.slowest_s[kind]:.1f} s"
        rows.append((kind, *(str(_in_column(counts, column)) for column in _COLUMNS), slowest))
    all_counts = outcome.record.all_counts
    rows.append(("all", *(str(_in_column(all_counts, column)) for column in _COLUMNS), ""))
    lines = [*aligned(rows), "", ", ".join(f"{what}: {count}" for what, count in sorted(outcome.done.items()))]
    lines.append(
        f"wrong bytes: {all_counts[WRONG]}, hangs: {all_counts[HANG]}, "
        f"closed without an answer by a living proxy: {all_counts[_NO_ANSWER_ALIVE]}, names left: {len(outcome.left)}, "
        f"tracebacks in logs: {outcome.tracebacks}, serves again: {'yes' if outcome.serves_again else 'NO'}"
    )
    return "\n".join([*lines, *outcome.record.details[:20], *outcome.left, "ok" if outcome.holds else "FAILED"])


def _in_column(counts: Counter[str], column: str) -> int:
    if column == "status 5xx":
        return sum(count for outcome, count in counts.items() if outcome.startswith("status "))
    return counts[column]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the counts. Exit status: 0 all is well, 1 something happened that must not, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of what is done (default: a random one, which is printed)")
    parser.add_argument("--minutes", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--hang-s", type=float, default=30.0, help="a slower answer is a hang (default: %(default)s)")
    arguments = parser.parse_args(argv)
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    raise_descriptor_limit()
    interrupt_on_ending_signals()
    print(f"chaos: seed {seed}, {arguments.minutes:g} minutes, {arguments.clients} clients", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="gfchaos-") as directory:
            outcome = run(seed, arguments.minutes * 60, arguments.clients, arguments.hang_s, directory)
    except (DaemonFailed, HelperFailed) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: interrupted; its daemons are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    print(as_text(outcome))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
