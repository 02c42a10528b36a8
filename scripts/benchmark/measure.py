"""Measures the rows: starts the contestants, measures them in turn, keeps the figures."""

import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from scripts.benchmark import rows as table
from scripts.benchmark.load import Figures, Group, Load, NativeLoad
from scripts.benchmark.memory import PairMemory, pair_memory
from scripts.benchmark.peer_servers import running_nginx
from scripts.benchmark.rows import FairnessRow, PeerFigures, Row, RowResult
from scripts.benchmark.stats import Comparison, compare, rotations
from scripts.benchmark.steps import ENVIRON, StepTimes, step_times_in
from scripts.daemons import Pair, PairOptions, running_daemon, running_pair

_SMALL_FILES, _LARGE_FILES = 32, 4
_OTHER_DESCRIPTORS = 500
_WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long and how often to measure."""

    rounds: int
    round_s: float
    fairness_round_s: float
    step_run_s: float


_NO_HOT_TABLE = ("SIMPLECACHED_HOT_TABLE_BYTES", "0")

FULL = Pace(rounds=5, round_s=2.5, fairness_round_s=6.0, step_run_s=3.0)
QUICK = Pace(rounds=3, round_s=0.7, fairness_round_s=2.0, step_run_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The requested files, in one flat directory, and the map that names them."""

    root: str
    map_path: str
    small: tuple[str, ...]
    large: tuple[str, ...]

    def group_of(self, row: Row) -> Group:
        """The clients of a row, which request all objects of its size."""
        paths = self.small if row.object_bytes == table.SMALL_BYTES else self.large
        return Group(name="all", clients=row.clients, paths=paths)


@dataclass(slots=True, kw_only=True)
class Bench:
    """Shared by all measurements. `directory` holds logs and objects; the caller owns and removes it."""

    directory: str
    objects: Objects
    load: Load
    pace: Pace
    many: Objects | None = None
    """Those of the rows with many; None if nobody may keep so many files open."""
    c_pair: str | None = None
    """The compiled C pair; None if there is no compiler."""
    memory_idle: list[PairMemory] = field(default_factory=list)
    memory_loaded: list[PairMemory] = field(default_factory=list)

    def with_objects_of(self, row: Row) -> "Bench | None":
        """The same over the objects of a row; None if there are none. Figures go to the same lists."""
        objects = self.many if row.many else self.objects
        return None if objects is None else replace(self, objects=objects)

    def pair_options(self, segment_bytes: int, environ: tuple[tuple[str, str], ...] = ()) -> PairOptions:
        """Our pair, configured for the table."""
        return PairOptions(
            source=self.objects.root,
            cache_threads=table.WORKER_COUNT,
            proxy_threads=table.WORKER_COUNT,
            segment_count=table.SEGMENT_COUNT,
            segment_bytes=segment_bytes,
            environ=environ,
        )

    @contextmanager
    def pair(self, segment_bytes: int, *, hot_table: bool = True) -> Iterator[Pair]:
        """Run our pair, and measure its memory when new and after the load."""
        options = self.pair_options(segment_bytes, () if hot_table else (_NO_HOT_TABLE,))
        with running_pair(options, self.directory, "gfbench") as pair:
            self.memory_idle.append(pair_memory(*pair.pids))
            yield pair
            self.memory_loaded.append(pair_memory(*pair.pids))


def say(text: str) -> None:
    """Report progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def make_objects(directory: str) -> Objects:
    """Write the objects, of random bytes, and their map below `directory`."""
    return _written(directory, "", {table.SMALL_BYTES: _SMALL_FILES, table.LARGE_BYTES: _LARGE_FILES})


def make_many_objects(directory: str) -> Objects | None:
    """As make_objects(), for the rows with many; None if the limit of descriptors is too low for them.

    Raises the limit of this process and its children: the floor and the C pair keep all files open.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if limit != resource.RLIM_INFINITY and limit < table.MANY_OBJECTS + _OTHER_DESCRIPTORS:
        say(f"rows with {table.MANY_OBJECTS:,} objects left out: `ulimit -n` is {limit}")
        return None
    return _written(directory, "many-", {table.SMALL_BYTES: table.MANY_OBJECTS, table.LARGE_BYTES: 0})


def _written(directory: str, prefix: str, counts: Mapping[int, int]) -> Objects:
    root, map_path = (os.path.join(directory, f"{prefix}{name}") for name in ("objects", "map.txt"))
    os.mkdir(root)
    names: dict[int, list[str]] = {size: [] for size in counts}
    with open(map_path, "w", encoding="utf-8") as listing:
        for size, count in counts.items():
            for number in range(count):
                name = f"{size}-{number}.bin"
                with open(os.path.join(root, name), "wb") as file:
                    file.write(os.urandom(size))
                listing.write(f"/{name} {os.path.join(root, name)}\n")
                names[size].append(f"/{name}")
    return Objects(
        root=root, map_path=map_path, small=tuple(names[table.SMALL_BYTES]), large=tuple(names[table.LARGE_BYTES])
    )


def measure_row(bench: Bench, row: Row) -> RowResult:
    """Measure our pair, the floor and the C pair in turn, after one checked pass over every object. Blocks."""
    group = bench.objects.group_of(row)
    with ExitStack() as started:
        ports = {
            "ours": started.enter_context(bench.pair(row.segment_bytes, hot_table=row.hot_table)).port,
            "floor": started.enter_context(running_floor(bench, row.segment_bytes)),
        }
        if bench.c_pair is not None:
            ports["c_pair"] = started.enter_context(running_c_pair(bench.c_pair, bench, row.segment_bytes))
        for port in ports.values():
            bench.load.verify(port, group.paths, bench.objects.map_path)
            bench.load.run(port, [group], _WARM_UP_S)
        results: dict[str, list[float]] = {name: [] for name in ports}
        for order in rotations(tuple(ports), bench.pace.rounds):
            for name in order:
                figures = bench.load.run(ports[name], [group], bench.pace.round_s)["all"]
                results[name].append(_figure(figures, row))
    return RowResult(
        row=row,
        floor=compare(results["ours"], results["floor"]),
        c_pair=compare(results["ours"], results["c_pair"]) if "c_pair" in results else None,
    )


def measure_fairness(bench: Bench, row: FairnessRow = table.FAIRNESS_ROW) -> Comparison:
    """The small requests' p99 in milliseconds beside a crowd of large ones (ours) and beside few (other). Blocks.

    Without the hot table, whose hits wait for no segment.
    """
    small = Group(name="small", clients=1, paths=bench.objects.small)
    beside = {"ours": row.crowd, "other": row.few}
    results: dict[str, list[float]] = {"ours": [], "other": []}
    with bench.pair(row.segment_bytes, hot_table=False) as pair:
        for order in rotations(tuple(beside), bench.pace.rounds):
            for who in order:
                large = Group(name="large", clients=beside[who], paths=bench.objects.large, background=True)
                figures = bench.load.run(pair.port, [large, small], bench.pace.fairness_round_s)["small"]
                results[who].append(figures.p99_ms)
    return compare(results["ours"], results["other"])


def measure_steps(bench: Bench) -> dict[str, StepTimes | None]:
    """The step times of one request, by row title; None if the proxy did not log them. Blocks.

    Without the hot table, whose hits have no such steps.
    """
    return {row.title: _steps_of(bench, row) for row in (table.COMMAND_ROW, table.LARGE_ROW)}


def _steps_of(bench: Bench, row: Row) -> StepTimes | None:
    group = bench.objects.group_of(row)
    options = bench.pair_options(row.segment_bytes, (*ENVIRON, _NO_HOT_TABLE))
    with running_pair(options, bench.directory, "gfbench-steps") as pair:
        bench.load.run(pair.port, [group], bench.pace.step_run_s)
        pair.stop()
        return step_times_in(pair.proxy.log_text())


def measure_nginx(bench: Bench, program: str) -> list[PeerFigures]:
    """Measure nginx's static files and its cache (all hits) for two rows, if the load speaks HTTP. Blocks."""
    load = bench.load
    if not isinstance(load, NativeLoad):
        return []
    say("nginx")
    results = []
    with running_nginx(program, bench.objects.root, bench.directory) as ports:
        for name, port in {"nginx, static files": ports.origin, "nginx, proxy_cache hit": ports.cache}.items():
            for row in (table.SMALL_ROW, table.LARGE_ROW):
                group = bench.objects.group_of(row)
                load.run(port, [group], 0.2, extra=["-H"])  # fills the cache
                figures = load.run(port, [group], bench.pace.round_s, extra=["-H"])[group.name]
                results.append(PeerFigures(name=name, row_title=row.title, figures=figures))
    return results


def _figure(figures: Figures, row: Row) -> float:
    return figures.requests_per_s if row.figure == table.REQUESTS else figures.megabytes_per_s


@contextmanager
def running_floor(bench: Bench, segment_bytes: int) -> Iterator[int]:
    """Run the floor over the bench's objects; its port."""
    numbers: Sequence[str] = ["-z", str(segment_bytes), "-t", str(table.WORKER_COUNT)]
    command = [sys.executable, "-m", "scripts.benchmark.floor", *numbers, bench.objects.root]
    clone = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    log_path = os.path.join(bench.directory, "floor.log")
    with running_daemon("floor", command, log_path, {"PYTHONPATH": clone}) as floor:
        yield floor.wait_for_port()


@contextmanager
def running_c_pair(program: str, bench: Bench, segment_bytes: int) -> Iterator[int]:
    """Run the C pair over the bench's objects; its port."""
    queue = ["-q", f"/gfbench-c-{os.getpid()}", "-t", str(table.WORKER_COUNT)]
    cache_command = [program, "cache", *queue, "-c", bench.objects.root]
    numbers = ["-p", "0", "-n", str(table.SEGMENT_COUNT), "-z", str(segment_bytes)]
    with running_daemon("C cache", cache_command, os.path.join(bench.directory, "c-cache.log")) as cache:
        cache.wait_for_event("ready")
        proxy_command, log_path = [program, "proxy", *queue, *numbers], os.path.join(bench.directory, "c-proxy.log")
        with running_daemon("C proxy", proxy_command, log_path) as proxy:
            yield proxy.wait_for_port()
