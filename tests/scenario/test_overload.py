"""Beyond the bound of requests that wait, one that would have to is refused at once, and what is stored is served."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.http.client import HttpClient
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.getfile import Status
from workloads.origin_stub import OriginStub, Route

BODY = os.urandom(8192)
WAITING_MAX = 3


def test_who_would_have_to_wait_is_refused_and_hits_go_on(yard: DaemonYard) -> None:
    yard.start_cache()
    gate = threading.Event()
    slow = {f"/slow-{n}": Route(body=BODY, hold=gate) for n in range(WAITING_MAX)}
    others = {path: Route(body=BODY, headers={"Cache-Control": "max-age=600"}) for path in ("/hit", "/new")}
    with OriginStub({**others, **slow}) as origin, ExitStack() as ending:
        proxy = yard.start_proxy("-s", origin.url, env={"WEBPROXY_REQUESTS_WAITING_MAX": str(WAITING_MAX)})
        wait_until(lambda: (ask(proxy.port, "/hit"), ask(proxy.port, "/hit"), origin.count("/hit") == 1)[2])
        crew = ending.enter_context(ThreadPoolExecutor(WAITING_MAX))
        ending.callback(gate.set)
        waiting = [crew.submit(ask, proxy.port, path) for path in slow]
        for route in slow.values():
            assert route.reached.wait(WATCHDOG_S)
        with HttpClient(proxy.port) as client:

            def is_refused() -> bool:
                """Time and again: a request that was served may count as one that waits for a moment after its end."""
                return all(client.ask("/new", method="DELETE").status == 503 for _ in range(20))

            wait_until(is_refused, what="all of them wait")
            for method in ("GET", "HEAD", "DELETE"):
                refused = client.ask("/new", method=method)
                assert (refused.status, refused.get("retry-after")) == (503, "1")
            assert client.ask("/hit").body == BODY
        assert ask(proxy.port, "/new").status is Status.ERROR
        assert ask(proxy.port, "/hit").body == BODY
        assert ask(proxy.port, "/slow-0").status is Status.ERROR, "one that would join a fetch waits as well"
        gate.set()
        assert [answer.result(WATCHDOG_S).body for answer in waiting] == [BODY] * WAITING_MAX
        wait_until(lambda: ask(proxy.port, "/new").body == BODY, what="there is room again")
    assert [line["kind"] for line in proxy.events("request failed")][:1] == ["Overloaded"]
    assert proxy.stop() == 0
