"""The verdicts of `scripts/slow_parties` follow from the figures, and its rows are those of its requirements."""

import json

import pytest

from scripts.stress import report
from scripts.stress.crowd import Then
from scripts.stress.hits import Tally, percentile
from scripts.stress.report import HitTimes, Result
from scripts.stress.rows import ROWS, Kind
from scripts.stress.slow_parties import main


def times(p99_ms: float, *, count: int = 100, ok: int = 100) -> HitTimes:
    return HitTimes(count=count, ok=ok, p50_ms=1.0, p99_ms=p99_ms)


class TestJudge:
    @pytest.mark.parametrize(
        ("idle", "beside", "holds"), [(1, 20, True), (1, 21, False), (15, 30, True), (15, 31, False)]
    )
    def test_hits_may_take_twice_as_long_as_idle_ones_or_20_ms(self, idle, beside, holds):
        assert (report.judge_hits(times(idle), times(beside)) == []) is holds

    def test_no_hit_may_fail(self):
        assert report.judge_hits(times(1), times(1, ok=99)) == ["hits fail"]

    def test_what_only_a_noisy_machine_may_have_caused(self):
        late = report.judge_hits(times(1), times(100))
        assert report.only_latency_misses(Result(name="a", title="a", reasons=late))
        assert not report.only_latency_misses(Result(name="a", title="a", reasons=[*late, "hits fail"]))
        assert not report.only_latency_misses(Result(name="a", title="a"))

    def test_memory_is_judged_when_the_parties_are_many(self):
        assert report.judge_memory(31, parties=1000) == ["above 30 KiB"]
        assert report.judge_memory(30, parties=1000) == []
        assert report.judge_memory(31, parties=24) == []

    def test_overload(self):
        assert report.judge_overload(80, 100, None) == []
        assert report.judge_overload(80, 100, 5.0) == []
        assert report.judge_overload(79, 100, 5.1) == ["goodput below 0.8 of 100/s", "refusals above 5 ms"]

    def test_a_stopped_cache_costs_at_most_half(self):
        assert report.judge_stopped_cache(50, 100, failed=0) == []
        assert report.judge_stopped_cache(49, 100, failed=1) == ["below 0.5 of a dead cache's", "requests fail"]

    def test_connections_of_an_origin(self):
        assert report.judge_origin(64) == []
        assert report.judge_origin(65) == ["origin above 64 at once"]


class TestTable:
    results = (
        Result(name="a", title="one", idle=times(2), beside=times(3), party_kib=4.25),
        Result(name="b", title="two", refused=7, refused_p95_ms=1.5, notes=["x", "y"], reasons=["too slow"]),
    )

    def test_as_text(self):
        lines = report.as_text(self.results, "heading").splitlines()
        assert lines[0] == "heading"
        assert lines[4].split() == ["one", "1.0/2.0", "1.0/3.0", "0/100", "4.2", "ok"]
        assert lines[5].split() == ["two", "7", "(1.5)", "x,", "y", "below:", "too", "slow"]
        assert lines[-1] == "1 of 2 rows hold"

    def test_as_json(self):
        read = json.loads(report.as_json(self.results))
        assert [row["verdict"] for row in read["rows"]] == ["ok", "below"]
        assert read["holds"] is False


class TestTally:
    def test_what_got_no_answer_counts_with_its_time(self):
        tally = Tally()
        for outcome, seconds in (("ok", 0.001), ("no answer", 3.0), ("503", 0.002)):
            tally.note(outcome, seconds, at_s=1.0)
        summary = tally.summary()
        assert (summary["count"], summary["ok"], summary["refused"]) == (3, 1, 1)
        assert (summary["p50_ms"], summary["p99_ms"], summary["refused_p95_ms"]) == (2.0, 3000.0, 2.0)

    def test_percentiles(self):
        assert percentile([], 0.5) is None
        assert percentile([3.0], 0.99) == 3.0
        assert percentile([float(value) for value in range(100)], 0.99) == 99.0


class TestRows:
    def test_names_are_unique_and_each_crowd_has_its_parties(self):
        assert len({row.name for row in ROWS}) == len(ROWS)
        assert all((row.parties is not None) is (row.kind is Kind.CROWD) for row in ROWS)

    def test_requests_are_complete(self):
        """A party waits for somebody else, never for the end of its own head."""
        requests = [row.parties for row in ROWS if row.parties is not None]
        assert all("\r\n\r\n" in parties.request for parties in requests)
        assert {parties.then for parties in requests} == set(Then)

    @pytest.mark.parametrize("arguments", [["--rows", "nonsense"], ["--parties", "0"], ["--parties", "99999999"]])
    def test_usage(self, arguments, capsys):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("usage: slow_parties")
