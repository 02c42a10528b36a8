"""Views: each page of the monitor as tables and lines, from the figures alone: what is shown is decided here.

The screen shows one of them at a time; `gfmon --once` prints the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shmchannel.streams.survey import SegmentState, SegmentView
from webproxy.admin.overview import ProcessView
from webproxy.monitor.blocks import Block, Cell, Column, Lines, Table, Tone, joined, plain_cells, shown_text
from webproxy.monitor.figures import LIVE, ORIGIN_STATES, CacheFigures, Figures, Traffic
from webproxy.monitor.quantities import UNKNOWN, bar, count, duration, level, rate, share, size, spark
from webproxy.telemetry.metrics import OUTCOMES

SEGMENT_ROWS_MAX = 500
"""Segments with a line of their own; the tiles show all."""
_BAR_CHARACTERS = 30
_TILE_TONES = {
    SegmentState.UNUSED: Tone.DIM,
    SegmentState.AT_REST: Tone.DIM,
    SegmentState.EMPTY: Tone.GOOD,
    SegmentState.FULL: Tone.WARNING,
    SegmentState.IN_USE: Tone.GOOD,
}
_UNUSED_TILE, _REST_TILE, _ORPHAN_TILE, _UNKNOWN_TILE = "·", "○", "x", "▒"
_MOVING = (SegmentState.EMPTY, SegmentState.FULL, SegmentState.IN_USE)
NO_DAEMON = "No daemon of this user runs here: start simplecached and webproxy."
_HANGS = "hangs"


class Frame(NamedTuple):
    """What a page is made of: the figures, how wide it should be, and earlier rates of requests, oldest first.

    `nobody` is said if there is no process.
    """

    figures: Figures
    width: int = 100
    history: Sequence[float | None] = ()
    nobody: str = NO_DAEMON


class Page(NamedTuple):
    """A page: the key that shows it, its name, and what it shows."""

    key: str
    name: str
    view: Callable[[Frame], tuple[Block, ...]]


# -- overview --------------------------------------------------------------------------------------------------------
def overview(frame: Frame) -> tuple[Block, ...]:
    """Whether all is well, and how much is done how fast."""
    figures = frame.figures
    blocks: list[Block] = [_health(frame)]
    if not figures.overview.processes and not figures.overview.pages:
        return tuple(blocks)
    blocks.append(_traffic(frame))
    blocks.append(_queues(figures))
    blocks.append(_latency(figures))
    blocks.append(_caches(figures))
    if figures.origins:
        blocks.append(_origins(figures))
    return tuple(blocks)


def _health(frame: Frame) -> Lines:
    figures = frame.figures
    processes = figures.overview.processes
    if not processes:
        return Lines("", ((Cell(frame.nobody, Tone.WARNING),),))
    roles = Counter(process.role for process in processes)
    first = ", ".join(_counted(number, shown_text(role)) for role, number in sorted(roles.items()))
    all_well = () if figures.troubled else (Cell("; all make progress", Tone.GOOD),)
    troubles = tuple((Cell(trouble(process), Tone.BAD),) for process in figures.troubled)
    return Lines("", ((Cell("Processes  ", Tone.DIM), Cell(first, Tone.STRONG), *all_well), *troubles))


def _counted(number: int, role: str) -> str:
    return f"{number} {role if number == 1 else role.removesuffix('y') + 'ies' if role.endswith('y') else role + 's'}"


def trouble(process: ProcessView) -> str:
    """What is wrong with a process, and what to do."""
    who = f"{shown_text(process.role)} {shown_text(process.name)} (pid {process.pid})"
    if process.state == "stuck":
        return (
            f"{who} {_HANGS}: no heartbeat for {duration(process.heartbeat_age_s)}. See its log; end it if it stays so."
        )
    return f"{who}: {process.state}"


def _when(figures: Figures) -> str:
    return "since the start" if figures.interval_s is None else f"in the last {duration(figures.interval_s)}"


def _traffic(frame: Frame) -> Lines:
    figures = frame.figures
    now, ever = figures.traffic, figures.since_start

    def line(name: str, *values: str) -> tuple[Cell, ...]:
        return (Cell(f"  {name:<16}", Tone.DIM), Cell(f"{values[0]:<12}", Tone.STRONG), *plain_cells(*values[1:]))

    def hits(name: str, of: Callable[[Traffic], float | None]) -> tuple[Cell, ...]:
        value = of(now)
        text = bar(value or 0.0, _BAR_CHARACTERS)
        return joined(
            line(name, share(value)),
            (Cell(f"{text:<{_BAR_CHARACTERS}}", Tone.GOOD), Cell(f"  since the start {share(of(ever))}", Tone.DIM)),
        )

    room = max(0, min(60, frame.width - 32))
    return Lines(
        f"Traffic {_when(figures)}",
        (
            joined(line("requests", rate(now.requests_per_s)), (Cell(spark(frame.history, room), Tone.GOOD),)),
            line("sent", f"{size(now.sent_bytes_per_s)}{'' if now.sent_bytes_per_s is None else '/s'}"),
            line("errors", rate(now.errors_per_s)),
            hits("hits, requests", lambda traffic: traffic.hit_ratio),
            hits("hits, bytes", lambda traffic: traffic.byte_hit_ratio),
            line("requests in all", count(figures.requests_total)),
        ),
    )


def _queues(figures: Figures) -> Table:
    gauges = figures.proxy_gauges
    rows = [
        _queue(f"commands to {shown_text(cache.queue)}", cache.gauges["queue_depth"], cache.commands_per_s)
        for cache in figures.caches
    ]
    rows += [
        _queue("jobs for a thread", gauges["run_queue"], figures.traffic.requests_per_s),
        _queue("transfers for a segment", gauges["segments_waiting"], figures.leases_per_s),
        _queue("requests for an origin, a fetch or a client", gauges["requests_waiting"], None),
    ]
    return Table("Queues", (Column("what waits"), Column("depth", True), Column("rate", True)), tuple(rows))


def _queue(name: str, depth: float, per_s: float | None) -> tuple[Cell, ...]:
    return Cell(name), Cell(count(depth), Tone.WARNING if depth else Tone.PLAIN), Cell(rate(per_s))


def _latency(figures: Figures) -> Table:
    most = max((step.count for step in figures.latency), default=0)
    rows = tuple(
        (
            Cell("more" if step.below_s is None else f"< {duration(step.below_s)}"),
            Cell(count(step.count)),
            Cell(bar(step.count / most, _BAR_CHARACTERS), Tone.GOOD),
        )
        for step in figures.latency
    )
    columns = (Column("to the last byte", True), Column("requests", True), Column(""))
    return Table(f"Latency {_when(figures)}", columns, rows, "no request")


# -- segments --------------------------------------------------------------------------------------------------------
def segments(frame: Frame) -> tuple[Block, ...]:
    """All segments as tiles, pool by pool, and one by one, those that move first."""
    known = frame.figures.overview.segments
    pools: dict[str, list[SegmentView]] = {}
    for segment in known:
        pools.setdefault(segment.pool, []).append(segment)
    blocks: list[Block] = [_tiles(pool, found, frame.width) for pool, found in sorted(pools.items())]
    if known:
        blocks.append(_legend())
    ordered = sorted(known, key=lambda segment: (segment.state not in _MOVING, segment.state == SegmentState.UNUSED))
    rows = tuple(
        (
            Cell(segment.name),
            _owner(segment),
            Cell(segment.state, _TILE_TONES[segment.state]),
            Cell(str(segment.producer_pid or UNKNOWN)),
            Cell(size(segment.done_bytes) if segment.generation else UNKNOWN),
            Cell(size(segment.object_bytes) if segment.object_bytes else UNKNOWN),
            Cell(bar(_progress(segment) or 0.0, 10), _TILE_TONES[segment.state]),
        )
        for segment in ordered[:SEGMENT_ROWS_MAX]
    )
    columns = (
        Column("segment"),
        Column("owner"),
        Column("state"),
        Column("producer", True),
        Column("done", True),
        Column("of", True),
        Column("progress"),
    )
    hidden = len(known) - len(rows)
    title = f"Segments: {len(known)}" + (f", of which {hidden} have no line here" if hidden else "")
    return (*blocks, Table(title, columns, rows, "There are none: no proxy with a cache runs."))


def _owner(segment: SegmentView) -> Cell:
    if segment.owner_lives:
        return Cell(f"pid {segment.owner_pid}")
    return Cell(f"pid {segment.owner_pid}, dead", Tone.BAD)


def _progress(segment: SegmentView) -> float | None:
    if not segment.generation or not segment.object_bytes:
        return None
    return segment.done_bytes / segment.object_bytes


def tile(segment: SegmentView) -> Cell:
    """A segment as one character: how far its transfer is, or that there is none."""
    if not segment.owner_lives:
        return Cell(_ORPHAN_TILE, Tone.BAD)
    tone = _TILE_TONES[segment.state]
    if segment.state not in _MOVING:
        return Cell(_UNUSED_TILE if segment.state is SegmentState.UNUSED else _REST_TILE, tone)
    progress = _progress(segment)
    return Cell(_UNKNOWN_TILE if progress is None else level(max(progress, 0.01)), tone)


def _tiles(pool: str, found: Sequence[SegmentView], width: int) -> Lines:
    room = max(8, width - 4)
    cells = [tile(segment) for segment in found]
    lines = tuple((Cell("  "), *cells[at : at + room]) for at in range(0, len(cells), room))
    first = found[0]
    whose = f"pid {first.owner_pid}" + ("" if first.owner_lives else ", dead: the next start of a daemon removes them")
    return Lines(f"Pool {shown_text(pool)} of {whose}: {len(found)} of {size(first.segment_bytes)}", lines)


def _legend() -> Lines:
    return Lines(
        "",
        (
            (
                Cell(f"  {_UNUSED_TILE} unused  {_REST_TILE} at rest  ", Tone.DIM),
                Cell("▁▄█ producer's turn, or in use  ", Tone.GOOD),
                Cell("▁▄█ consumer's turn  ", Tone.WARNING),
                Cell(f"{_ORPHAN_TILE} owner dead", Tone.BAD),
            ),
            (Cell(f"  height: how far the transfer is; {_UNKNOWN_TILE} not known", Tone.DIM),),
        ),
    )


# -- caches, processes, origins, requests ----------------------------------------------------------------------------
def caches(frame: Frame) -> tuple[Block, ...]:
    """Each cache: its queue, its store, its commands."""
    known = frame.figures.caches
    columns = tuple(Column(title, title != "cache") for title in ("cache", "commands", "p50", "p90", "p99", "hits"))
    rows = tuple(
        (
            Cell(shown_text(cache.queue)),
            Cell(rate(cache.commands_per_s)),
            *(Cell(duration(time)) for time in _percentiles(cache)),
            Cell(share(cache.command_hit_ratio)),
        )
        for cache in known
    )
    empty = "No cache runs."
    return _caches(frame.figures), Table(f"Commands {_when(frame.figures)}", columns, rows, empty)


def _percentiles(cache: CacheFigures) -> tuple[float | None, float | None, float | None]:
    times = cache.command_times
    return times.p50_s, times.p90_s, times.p99_s


def _caches(figures: Figures) -> Table:
    titles = ("cache", "state", "objects", "stored", "of", "", "evicted", "oldest", "queue", "threads busy")
    rows = []
    for cache in figures.caches:
        gauges = cache.gauges
        budget = gauges["budget_bytes"]
        rows.append(
            (
                Cell(shown_text(cache.queue)),
                _state(cache.state),
                Cell(count(gauges["objects"])),
                Cell(size(gauges["bytes"])),
                Cell(size(budget) if budget else UNKNOWN),
                Cell(bar(gauges["bytes"] / budget if budget else 0.0, 10), Tone.GOOD),
                Cell(rate(cache.evicted_per_s)),
                Cell(duration(gauges["oldest_seconds"]) if gauges["oldest_seconds"] else UNKNOWN),
                Cell(count(gauges["queue_depth"])),
                Cell(f"{count(gauges['threads_busy'])} of {count(gauges['threads'])}"),
            )
        )
    columns = tuple(Column(title, title not in ("cache", "state", "")) for title in titles)
    return Table("Caches", columns, tuple(rows), "No cache runs: requests go to the origin.")


def _state(state: str) -> Cell:
    if state == "stuck":
        return Cell(f"stuck ({_HANGS})", Tone.BAD)
    return Cell(state, Tone.GOOD if state == LIVE else Tone.BAD)


def processes(frame: Frame) -> tuple[Block, ...]:
    """Each process from the registry and the pages, with what the system says of it."""
    titles = (
        "role", "name", "pid", "state", "heartbeat", "CPU", "memory", "files", "threads", "slot", "up", "load", "rate",
    )  # fmt: skip
    texts = ("role", "name", "state")
    rows = tuple(
        (
            Cell(shown_text(found.process.role)),
            Cell(shown_text(found.process.address or found.process.name)),
            Cell(str(found.process.pid)),
            _state(found.process.state),
            Cell(duration(found.process.heartbeat_age_s)),
            Cell(share(found.cpu_share)),
            Cell(size(found.process.resident_bytes)),
            Cell(count(found.process.descriptors)),
            Cell(count(found.process.threads)),
            Cell(UNKNOWN if found.process.slot is None else str(found.process.slot)),
            Cell(duration(found.process.uptime_s) if found.process.uptime_s else UNKNOWN),
            Cell(f"{found.process.load:g}"),
            Cell(rate(found.requests_per_s)),
        )
        for found in frame.figures.processes
    )
    columns = tuple(Column(title, title not in texts) for title in titles)
    blocks: tuple[Block, ...] = (Table("Processes", columns, rows, frame.nobody),)
    troubles = tuple((Cell(trouble(process), Tone.BAD),) for process in frame.figures.troubled)
    return (Lines("", troubles), *blocks) if troubles else blocks


def origins(frame: Frame) -> tuple[Block, ...]:
    """Each origin: whether it answers, how fast, what waits for it, what it was spared; and the paths missed most."""
    return _origins(frame.figures), _saved(frame.figures), _missed(frame.figures)


def _saved(figures: Figures) -> Table:
    rows = tuple(
        (Cell(shown_text(origin.name)), Cell(count(origin.saved)), Cell(size(origin.saved_bytes)))
        for origin in figures.origins
    )
    columns = (Column("origin"), Column("requests saved", True), Column("bytes saved", True))
    return Table("Saved since the start", columns, rows, "No origin is known.")


def _missed(figures: Figures) -> Table:
    rows = tuple(
        (Cell(shown_text(missed.path)), Cell(count(missed.requests)), Cell(size(missed.sent_bytes)))
        for missed in figures.missed
    )
    columns = (Column("path"), Column("requests", True), Column("sent", True))
    return Table("Paths that origins answered most often, since the start", columns, rows, "none")


def _origins(figures: Figures) -> Table:
    titles = ("origin", "state", "requests", "p50", "p90", "p99", "connections", "line", "failures")
    rows = tuple(
        (
            Cell(shown_text(origin.name)),
            Cell(origin.state or UNKNOWN, Tone.GOOD if origin.state == ORIGIN_STATES[0] else Tone.BAD),
            Cell(rate(origin.requests_per_s)),
            *(Cell(duration(t)) for t in (origin.head_times.p50_s, origin.head_times.p90_s, origin.head_times.p99_s)),
            Cell(count(origin.connections)),
            Cell(count(origin.line), Tone.WARNING if origin.line else Tone.PLAIN),
            Cell(count(origin.failures), Tone.WARNING if origin.failures else Tone.PLAIN),
        )
        for origin in figures.origins
    )
    columns = tuple(Column(title, title not in ("origin", "state")) for title in titles)
    return Table(f"Origins, times to the head {_when(figures)}", columns, rows, "No origin has been asked.")


def requests(frame: Frame) -> tuple[Block, ...]:
    """Requests by what became of them, slowest first; and whose they were."""
    figures = frame.figures
    found = sorted(figures.outcomes.items(), key=lambda item: item[1].p99_s or 0.0, reverse=True)
    rows = tuple(
        (
            Cell(outcome),
            Cell(count(times.count)),
            Cell(rate(times.per_s)),
            Cell(duration(times.p50_s)),
            Cell(duration(times.p90_s)),
            Cell(duration(times.p99_s), Tone.STRONG),
            Cell(OUTCOMES[outcome], Tone.DIM),
        )
        for outcome, times in found
    )
    titles = ("outcome", "requests", "rate", "p50", "p90", "p99", "meaning")
    columns = tuple(Column(title, title not in ("outcome", "meaning")) for title in titles)
    title = f"Requests {_when(figures)}, by outcome, slowest first; times to the last byte"
    return Table(title, columns, rows, "no request"), _latency(figures), _clients(figures)


def _clients(figures: Figures) -> Table:
    rows = tuple(
        (
            Cell(shown_text(client.client)),
            *(Cell(count(number)) for number in (client.requests, client.saved_requests)),
            *(Cell(size(number)) for number in (client.sent_bytes, client.saved_bytes)),
        )
        for client in figures.clients
    )
    titles = ("client", "requests", "saved", "sent", "from the cache")
    columns = tuple(Column(title, title != "client") for title in titles)
    return Table(
        "Clients that got most, of connections that have ended; small ones are estimated", columns, rows, "none"
    )


# -- help ------------------------------------------------------------------------------------------------------------
def keys(_frame: Frame) -> tuple[Block, ...]:
    """What each key does, and what is shown."""
    rows = tuple(plain_cells(page.key, _HELP[page.name]) for page in PAGES)
    rows += (plain_cells("arrows, page keys", "move within a page"), plain_cells("q", "quit"))
    return (
        Table("Keys", (Column("key"), Column("")), rows),
        Lines(
            "",
            (
                plain_cells(
                    "Everything is read from shared memory and /proc, and no daemon is asked: one that hangs is"
                ),
                plain_cells("shown, and called stuck once its heartbeat, which comes each second, is too old."),
                plain_cells("Rates, ratios and percentiles are those of the last few readings, as the titles say."),
            ),
        ),
    )


_HELP = {
    "overview": "overview: throughput, hit ratio in requests and bytes, queues, latency, caches, origins",
    "segments": "segments: owner, state and progress of each",
    "caches": "caches: store, evictions, commands",
    "processes": "processes: proxies, workers and caches with state, heartbeat, memory, descriptors, threads, CPU",
    "origins": "origins: state, latency, connections, what waits, what the cache saves them, paths missed most",
    "requests": "requests: times by outcome, slowest first; the clients that got most",
    "help": "help: this page",
}
PAGES = (
    Page("1", "overview", overview),
    Page("2", "segments", segments),
    Page("3", "caches", caches),
    Page("4", "processes", processes),
    Page("5", "origins", origins),
    Page("6", "requests", requests),
    Page("?", "help", keys),
)
