"""The HTTP rows over a real nginx: caches are filled and checked first, and what is measured is a hit."""

import http.client
import os
import tempfile
from collections.abc import Iterator, Sequence

import pytest

from scripts.benchmark.http_measure import Contest, make_http_objects, measure_row, paths_of
from scripts.benchmark.http_rows import HTTP_ROWS, KIB8, NGINX, OBJECT_COUNTS, OURS, VARNISH
from scripts.benchmark.load import Figures, LoadFailed
from scripts.benchmark.measure import QUICK, Pace
from scripts.benchmark.peer_servers import Accepting, NginxPorts, running_nginx
from scripts.benchmark.worker_measure import Programs, measure_with
from scripts.benchmark.worker_rows import LOG_ROWS, LOGGED, ONE_WORKER
from scripts.benchmark.wrk import Wrk
from tests.support.programs import require_program

ROW = next(row for row in HTTP_ROWS if row.object_bytes == KIB8)


class OnePass(Wrk):
    """Asks for each path once, in place of the load program; remembers the ports."""

    def __init__(self, directory: str) -> None:
        super().__init__("no program", directory)
        self.ports: list[int] = []

    def run(
        self, port: int, paths: Sequence[str], seconds: float, *, connections: int, new_connections: bool = False
    ) -> Figures:
        self.ports.append(port)
        for path in paths:
            assert len(body_of(port, path)) == int(path[1:].partition("-")[0])
        return Figures(requests=1, requests_per_s=float(len(self.ports)), megabytes_per_s=1.0, p50_ms=1.0, p99_ms=1.0)


def body_of(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.fixture
def place() -> Iterator[str]:
    """Not pytest's folder: the workers of an nginx that root started are another user, and could not enter it."""
    with tempfile.TemporaryDirectory(prefix="gft-bench-") as directory:
        make_http_objects(os.path.join(directory, "objects"))
        yield directory


@pytest.fixture
def nginx(place: str) -> Iterator[NginxPorts]:
    program = require_program("nginx")
    with running_nginx(program, f"{place}/objects", place, origin_log=f"{place}/origin.log") as ports:
        yield ports


def contest(place: str, **ports: int) -> Contest:
    return Contest(ports=ports, root=f"{place}/objects", origin_log=f"{place}/origin.log")


def test_objects_of_every_size_are_there(place: str) -> None:
    sizes = [os.path.getsize(f"{place}/objects{path}") for size in OBJECT_COUNTS for path in paths_of(size)]
    assert sizes == [size for size, count in OBJECT_COUNTS.items() for _ in range(count)]


def test_caches_are_filled_then_measured_in_turn(place: str, nginx: NginxPorts) -> None:
    load = OnePass(place)
    both = contest(place, **{OURS: nginx.cache, NGINX: nginx.cache})
    comparisons = measure_row(both, load, ROW, QUICK)
    assert list(comparisons) == [NGINX]
    assert len(load.ports) == 2 + 2 * QUICK.rounds
    assert comparisons[NGINX].round_count == QUICK.rounds
    assert both.origin_requests() == OBJECT_COUNTS[KIB8]


def test_whoever_asks_the_origin_while_measured_serves_no_hits(place: str, nginx: NginxPorts) -> None:
    with pytest.raises(LoadFailed, match=f"the origin was asked {QUICK.rounds * OBJECT_COUNTS[KIB8]} times"):
        measure_row(contest(place, **{OURS: nginx.origin, NGINX: nginx.cache}), OnePass(place), ROW, QUICK)


def test_a_wrong_body_is_found_before_measuring(place: str, nginx: NginxPorts) -> None:
    path = paths_of(KIB8)[-1]
    body_of(nginx.cache, path)
    with open(f"{place}/objects{path}", "r+b") as file:
        before = file.read(1)
        file.seek(0)
        file.write(bytes([before[0] ^ 1]))
    load = OnePass(place)
    with pytest.raises(LoadFailed, match=f"nginx: {path} came with status 200 and a wrong body"):
        measure_row(contest(place, **{NGINX: nginx.cache}), load, ROW, QUICK)
    assert load.ports == []


def test_short_form_with_workers_has_every_row(place: str) -> None:
    """The daemons and nginx run; only the load is one pass, so that the figures are of no use."""
    once = Pace(rounds=1, round_s=0.1, fairness_round_s=0.1, step_run_s=0.1)
    programs = Programs(nginx=require_program("nginx"), varnish=None, load=OnePass(place))
    results = measure_with(programs, place, once, 2, [ROW])
    compared = [(line.load, line.against) for line in results.lines]
    assert compared[:3] == [(ROW.title, against) for against in (ONE_WORKER, NGINX, "nginx, CPU time")]
    assert [against for _, against in compared[3:]] == [LOGGED] * len(LOG_ROWS)
    cpu = results.lines[2].comparison
    assert min(cpu.ours, cpu.other) > 0
    assert results.accepting in {way.value for way in Accepting}
    assert results.start_s > 0
    assert results.missing == [VARNISH]
    with open(f"{place}/contest/access.log", encoding="utf-8") as log:
        assert len(log.readlines()) >= OBJECT_COUNTS[KIB8]
