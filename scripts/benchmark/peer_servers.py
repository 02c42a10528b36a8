"""Peer servers, started with our configuration: nginx as origin and as cache, varnish as cache. Loopback only."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scripts.daemons import running_daemon

_NGINX = """
daemon off;
master_process on;
worker_processes 2;
pid {work}/nginx.pid;
error_log {work}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    proxy_cache_path {work}/cache keys_zone=bench:10m use_temp_path=off;
    server {{
        listen 127.0.0.1:{origin_port} backlog=1024;
        root {root};
        expires 1d;
        access_log {origin_log};
    }}
    server {{
        listen 127.0.0.1:{cache_port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{origin_port};
            proxy_cache bench;
            proxy_cache_valid 200 1h;
        }}
    }}
}}
"""
_VARNISH_STORE = "malloc,256m"


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxPorts:
    """Its ports: `origin` serves files that are fresh for a day, `cache` caches them."""

    origin: int
    cache: int


@contextmanager
def running_nginx(program: str, root: str, work: str, *, origin_log: str = "off") -> Iterator[NginxPorts]:
    """Run nginx for the files below `root`; its own files go below `work`. Raises DaemonFailed.

    `origin_log` is a file to which the origin writes a line for each request it answers.
    """
    home = _home(work, "nginx", root)
    origin_port, cache_port = _free_ports(2)
    configuration = os.path.join(home, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(
            _NGINX.format(work=home, root=root, origin_port=origin_port, cache_port=cache_port, origin_log=origin_log)
        )
    command = [program, "-p", home, "-c", configuration]
    with running_daemon("nginx", command, os.path.join(home, "log")) as daemon:
        for port in (origin_port, cache_port):
            daemon.wait_until_accepting(port)
        yield NginxPorts(origin=origin_port, cache=cache_port)


@contextmanager
def running_varnish(program: str, origin_port: int, work: str) -> Iterator[int]:
    """Run varnish in front of an origin on the loopback address, with its store in memory; yields its port.

    Raises DaemonFailed.
    """
    home = _home(work, "varnish")
    (port,) = _free_ports(1)
    places = ["-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{origin_port}", "-T", "127.0.0.1:0"]
    command = [program, "-F", "-n", os.path.join(home, "state"), "-s", _VARNISH_STORE, *places]
    with running_daemon("varnish", command, os.path.join(home, "log")) as daemon:
        daemon.wait_until_accepting(port)
        yield port


def find_server(name: str) -> str | None:
    """The path of a server program, even if only root's PATH leads to it; None if it is not installed."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _home(work: str, name: str, *others: str) -> str:
    """A directory below `work`. Servers started by root become another user, which must be able to enter it."""
    home = os.path.join(work, name)
    os.makedirs(home, exist_ok=True)
    if os.geteuid() == 0:
        for place in (work, home, *others):
            os.chmod(place, 0o755)
    return home


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, because neither program can report one chosen by the kernel."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
