"""nginx for comparison with the getfile rows, if installed: static files and its cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.benchmark.load import Figures, Group, NativeLoad
from scripts.benchmark.peer_servers import running_nginx


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFigures:
    """A peer's figures under the load of a row; over HTTP, with a new connection for each request, as for ours."""

    name: str
    row_title: str
    figures: Figures


def measure_nginx(
    program: str, root: str, work: str, load: NativeLoad, rows: Sequence[tuple[str, Group]], seconds: float
) -> list[PeerFigures]:
    """Measure nginx's static files and its cache (all hits) for each row. Blocks. Raises LoadFailed, DaemonFailed."""
    results = []
    with running_nginx(program, root, work) as ports:
        for name, port in {"nginx, static files": ports.origin, "nginx, proxy_cache hit": ports.cache}.items():
            for title, group in rows:
                load.run(port, [group], 0.2, extra=["-H"])  # fills the cache
                figures = load.run(port, [group], seconds, extra=["-H"])[group.name]
                results.append(PeerFigures(name=name, row_title=title, figures=figures))
    return results
