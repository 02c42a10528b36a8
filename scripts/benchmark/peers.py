"""Well-known servers to compare with, where they are installed: nginx answering from files and from its cache."""

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from scripts.benchmark.load import Figures, Group, NativeLoad
from scripts.daemons import Daemon

_CONFIGURATION = """
daemon off;
master_process on;
worker_processes 2;
pid {work}/nginx.pid;
error_log {work}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    proxy_cache_path {work}/cache keys_zone=bench:10m use_temp_path=off;
    server {{ listen 127.0.0.1:{static_port} backlog=1024; root {root}; }}
    server {{
        listen 127.0.0.1:{cache_port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{static_port};
            proxy_cache bench;
            proxy_cache_valid 200 1h;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFigures:
    """What a peer did under the load of a row; over HTTP, a new connection for each request, as ours."""

    name: str
    row_title: str
    figures: Figures


def installed() -> dict[str, str | None]:
    """Each peer we know and where it is; None for those that are not installed."""
    return {"nginx": shutil.which("nginx")}


def measure_nginx(
    program: str, root: str, work: str, load: NativeLoad, rows: Sequence[tuple[str, Group]], seconds: float
) -> list[PeerFigures]:
    """Measure nginx's static files and its cache (all hits) for each row. Blocks. Raises LoadFailed, DaemonFailed."""
    results = []
    with _running_nginx(program, root, work) as ports:
        for name, port in ports.items():
            for title, group in rows:
                load.run(port, [group], 0.2, extra=["-H"])  # fills the cache
                figures = load.run(port, [group], seconds, extra=["-H"])[group.name]
                results.append(PeerFigures(name=name, row_title=title, figures=figures))
    return results


@contextmanager
def _running_nginx(program: str, root: str, work: str) -> Iterator[dict[str, int]]:
    home = os.path.join(work, "nginx")
    os.makedirs(home, exist_ok=True)
    if os.geteuid() == 0:  # its workers become another user
        for place in (work, home, root):
            os.chmod(place, 0o755)
    static_port, cache_port = _free_ports(2)
    configuration = os.path.join(home, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(_CONFIGURATION.format(work=home, root=root, static_port=static_port, cache_port=cache_port))
    daemon = Daemon("nginx", [program, "-p", home, "-c", configuration], os.path.join(home, "log"))
    try:
        for port in (static_port, cache_port):
            daemon.wait_until_accepting(port)
        yield {"nginx, static files": static_port, "nginx, proxy_cache hit": cache_port}
    finally:
        daemon.stop()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; nginx cannot say which one the kernel chose for it."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
