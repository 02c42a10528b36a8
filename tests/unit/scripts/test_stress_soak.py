"""`scripts/soak` tells growth from a warm-up, and a fault of the proxy from one of the origin."""

import random
import threading
from dataclasses import replace

import pytest

from scripts.stress import soak
from scripts.stress.checked import CUT, HANG, NO_ANSWER, NO_CONNECTION, WHOLE, WRONG
from scripts.stress.clients import Client, Performed, Record, running_clients
from scripts.stress.flatness import Bounds, as_tables, is_settled, what_grew
from scripts.stress.mixed import LEFT, is_fault, perform_any
from scripts.stress.origin import routes
from scripts.stress.resources import Held, Sample
from workloads.origin_stub import OriginStub

BOUNDS = Bounds(memory_allowed_mb=1.0, origin_connections_max=10)


def held(**figures) -> Held:
    usual = {
        "rss_mb": 40.0,
        "pss_mb": 30.0,
        "own_mb": 20.0,
        "shared_mb": 5.0,
        "threads": 9,
        "descriptors": 30,
        "clients": 0,
        "origins": 5,
    }
    return Held(**usual | {"objects": 8, "unlinked": 0, "segments": 9} | figures)


def at_pause(*, names: int = 11, queues: int = 1, files: int = 80, cache: Held | None = None, **proxy) -> Sample:
    return Sample(
        at_s=1.0,
        requests=100,
        cache=cache or held(),
        proxy=held(**proxy),
        names=names,
        queues=queues,
        stored_files=files,
    )


def run_of(figure: str, *values: float) -> list[Sample]:
    return [at_pause(**{figure: value}) for value in values]


class TestGrowth:
    def test_an_even_run_is_flat(self):
        assert what_grew([at_pause()] * 8, BOUNDS) == []

    @pytest.mark.parametrize(
        ("figure", "grown"),
        [("threads", "from 31 to 33"), ("descriptors", "from 18 to 20"), ("segments", "from 31 to 33")],
    )
    def test_a_count_that_rises(self, figure, grown):
        found = what_grew(run_of(figure, 30, 30, 30, 31, 32, 32, 33, 34), BOUNDS)
        assert [each.partition(": ")[2] for each in found] == [grown]

    def test_objects_in_memory_vary_a_little(self):
        def objects(*counts: int) -> list[Sample]:
            return [at_pause(files=0, objects=count, descriptors=count + 30) for count in counts]

        assert what_grew(objects(80, 80, 81, 80, 85, 85, 89, 90), BOUNDS) == []
        assert what_grew(objects(80, 80, 81, 80, 85, 85, 90, 91), BOUNDS) == [
            "webproxy descriptors of objects: from 81 to 90"
        ]

    def test_open_files_of_the_store_are_no_more_than_it_has(self):
        def objects(*counts: int) -> list[Sample]:
            return [at_pause(files=80, objects=count, descriptors=count + 30) for count in counts]

        assert what_grew(objects(5, 6, 5, 6, 30, 40, 60, 80), BOUNDS) == []
        assert len(what_grew(objects(5, 6, 5, 6, 30, 40, 89, 95), BOUNDS)) == 1

    def test_of_the_cache_too(self):
        samples = [at_pause(cache=held(threads=9 + number)) for number in range(8)]
        assert what_grew(samples, BOUNDS) == ["simplecached threads: from 12 to 15"]

    @pytest.mark.parametrize("figure", ["names", "queues", "files"])
    def test_names_and_files(self, figure):
        assert len(what_grew(run_of(figure, 1, 1, 1, 1, 2, 2, 2, 2), BOUNDS)) == 1

    def test_a_count_that_is_high_once_or_in_the_warm_up(self):
        assert what_grew(run_of("threads", 5, 9, 12, 12, 13, 12, 14, 12), BOUNDS) == []
        assert what_grew(run_of("threads", 20, 9, 9, 9, 9, 9, 9, 9), BOUNDS) == []

    def test_connections_to_origins_are_bounded_only(self):
        samples = [at_pause(descriptors=25 + count, origins=count) for count in (1, 2, 3, 4, 7, 8, 9, 10)]
        assert what_grew(samples, BOUNDS) == []
        assert what_grew([*samples[:-1], at_pause(origins=11, descriptors=36)], BOUNDS) == [
            "connections to the origin: 11 of at most 10"
        ]

    @pytest.mark.parametrize("figure", ["clients", "unlinked"])
    def test_what_is_left_at_the_end(self, figure):
        assert what_grew(run_of(figure, 0, 0, 0, 2, 0, 2, 2, 0), BOUNDS) == []
        assert len(what_grew(run_of(figure, 0, 0, 0, 0, 0, 0, 0, 1), BOUNDS)) == 1

    @pytest.mark.parametrize("figure", ["own_mb", "shared_mb"])
    def test_memory_that_rises_to_the_end(self, figure):
        assert len(what_grew(run_of(figure, 20, 21, 22, 22.4, 22.8, 23.2, 23.6, 24), BOUNDS)) == 1

    def test_what_depends_on_other_programs_is_not_judged(self):
        assert what_grew(run_of("pss_mb", 20, 21, 22, 24, 26, 28, 30, 32), BOUNDS) == []

    def test_memory_that_warms_up_or_wavers(self):
        assert what_grew(run_of("own_mb", 20, 26, 30, 30.2, 30.5, 30.7, 30.9, 31), BOUNDS) == []
        assert what_grew(run_of("own_mb", 30, 30, 30, 30, 29, 29.5, 40, 30), BOUNDS) == []


class TestSettled:
    def test_not_while_something_is_left(self):
        assert not is_settled(at_pause(clients=1), at_pause(clients=1), [at_pause()])
        assert not is_settled(at_pause(unlinked=1), at_pause(unlinked=1), [])

    def test_at_first_when_it_rests(self):
        assert not is_settled(at_pause(), None, [])
        assert not is_settled(at_pause(threads=8), at_pause(), [])
        assert is_settled(at_pause(), at_pause(), [])

    def test_then_when_no_count_is_higher_than_before(self):
        assert is_settled(at_pause(threads=8), None, [at_pause()])
        assert not is_settled(at_pause(threads=10), at_pause(threads=10), [at_pause()])


class TestFaults:
    @pytest.mark.parametrize("kind", ["miss", "silent origin", "body that breaks off"])
    @pytest.mark.parametrize("outcome", [WRONG, HANG, NO_ANSWER, NO_CONNECTION])
    def test_never(self, kind, outcome):
        assert is_fault(Performed(kind, "/a", outcome))

    @pytest.mark.parametrize("outcome", [CUT, "status 503"])
    def test_an_origin_may_be_the_cause(self, outcome):
        assert is_fault(Performed("miss", "/a", outcome))
        assert not is_fault(Performed("body that breaks off", "/a", outcome))

    @pytest.mark.parametrize("outcome", [WHOLE, LEFT])
    def test_well(self, outcome):
        assert not is_fault(Performed("miss", "/a", outcome))


@pytest.mark.parametrize("bad", [{"grown": ["x"]}, {"left": ["x"]}, {"tracebacks": 1}])
def test_each_fails_the_run(bad):
    outcome = soak.Outcome(record=Record(), samples=[at_pause()] * 4)
    assert outcome.holds
    assert soak.as_text(outcome).endswith("\nok")
    for name, value in bad.items():
        setattr(outcome, name, value)
    assert not outcome.holds
    assert soak.as_text(outcome).endswith("\nFAILED")


def test_a_failure_fails_the_run():
    outcome = soak.Outcome(record=Record(), samples=[at_pause()] * 4)
    outcome.record.note(Performed("miss", "GET /a", "status 503"), 0.2, fault=True)
    assert not outcome.holds
    assert "MUST NOT BE: status 503 after 0.2 s: GET /a" in soak.as_text(outcome)


def test_a_table_has_a_row_for_each_pause():
    samples = [replace(at_pause(threads=number), at_s=float(number)) for number in (7, 9)]
    lines = as_tables(samples).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["7", "s"], ["9", "s"]]
    assert [line.split()[0] for line in (lines[0], lines[4])] == ["webproxy", "simplecached"]


class TestClients:
    def test_right_answers_are_right(self):
        """Before the origin itself, whose answers are right, but for PURGE, getfile and several ranges."""
        choice = random.Random(3)
        with OriginStub(routes()) as origin:
            performed = [perform_any(origin.port, choice, 20.0) for _ in range(30)]
        kinds = ("miss", "variant", "validated")
        assert {each.outcome for each in performed if each.kind in kinds and "GET" in each.request} >= {WHOLE}

    def test_one_that_fails_is_in_the_record(self):
        ending, record = threading.Event(), Record()

        def fail(_: random.Random) -> Performed:
            ending.set()
            raise ZeroDivisionError

        with running_clients([Client("1", fail, record, ending)], ending):
            ending.wait(20.0)
        assert len(record.details) == 1
        assert "ZeroDivisionError" in record.details[0]
