"""`health_path`: the health of a process on its own port, while all is well, while nothing else is, and at its end."""

import os
import signal

from shmchannel.stats_pages import read_pages
from tests.http.client import HttpClient, fetch
from tests.support.client import PacedDownload
from tests.support.contents import write_files
from tests.support.waiting import wait_until
from workloads.origin_stub import Route

PATH = "/.gfcache/health"
SET = {"WEBPROXY_HEALTH_PATH": PATH}


def is_hot(proxy, target):
    """Ask once, and look whether an answer of this proxy has come from the hot table."""
    assert fetch(proxy.port, target).body == b"an object\n"
    pages = [page for page in read_pages("proxy") if page.writer is not None and page.writer.pid == proxy.pid]
    return pages and pages[0].number("gfcache_proxy_requests_total", "http", "hot", "2xx")


def test_health_hides_what_the_cache_has_and_needs_neither_cache_nor_origin(yard, origin):
    origin.add(PATH, Route(body=b"an object\n", headers={"Cache-Control": "max-age=3600"}))
    cache = yard.start_cache()
    plain = yard.start_proxy("-s", origin.url)
    wait_until(lambda: is_hot(plain, PATH), what="the object in the hot table, as by default it is any other's path")
    proxy = yard.start_proxy("-s", origin.url, env=SET)
    wait_until(lambda: is_hot(proxy, PATH + "?x=1"), what="the proxy looks there, and only the very path is meant")
    for _ in range(3):
        for _ in range(3):  # what is not asked for does not stay in the table
            is_hot(plain, PATH)
        assert (fetch(proxy.port, PATH).status, fetch(proxy.port, PATH).body) == (200, b"ok\n")
    cache.kill()
    origin.close()
    assert fetch(proxy.port, PATH).body == b"ok\n"


def test_a_process_that_was_replaced_says_that_it_drains(yard, tmp_path):
    write_files(tmp_path / "files", {"big": 48 << 20})
    yard.start_cache(content=tmp_path / "files")
    proxy = yard.start_proxy("--segments-per-transfer-max", "1", env={**SET, "WEBPROXY_DRAIN_S": "3600"})
    with HttpClient(proxy.port) as kept, PacedDownload(proxy.port, b"/big") as download:
        assert kept.ask(PATH).status == 200
        proxy.signal(signal.SIGUSR2)
        successor = proxy.wait_event("successor ready")["successor"]
        try:
            reply = wait_until(lambda: answer_of_the_old(kept))
            assert (reply.body, reply.get("connection")) == (b"draining\n", "close")
            assert fetch(proxy.port, PATH).status == 200, "the new process is asked"
            download.finish()
            assert proxy.wait_exit() == 0
        finally:
            os.kill(successor, signal.SIGTERM)
    wait_until(lambda: not os.path.exists(f"/proc/{successor}/fd/0"))


def answer_of_the_old(client):
    """The answer once it is no longer well; until then it is."""
    reply = client.ask(PATH)
    assert reply.status in (200, 503)
    return reply if reply.status == 503 else None
