"""Peer servers, started with our configuration: nginx as origin and as cache, varnish as cache. Loopback only."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from scripts.daemons import Daemon, running_daemon

_NGINX = """
daemon off;
master_process on;
worker_processes {workers};
pid {work}/nginx.pid;
error_log {work}/nginx-error.log;
events {{ worker_connections 1024; accept_mutex {accept_mutex}; }}
http {{
    access_log off;
    sendfile on;
    {open_files}
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
        listen 127.0.0.1:{cache_port} backlog=1024{reuseport};
        location / {{
            proxy_pass http://127.0.0.1:{origin_port};
            proxy_cache bench;
            proxy_cache_valid 200 1h;
        }}
    }}
}}
"""
_OPEN_FILES = "open_file_cache max=10000 inactive=10m; open_file_cache_valid 10m;"
_VARNISH_STORE_BYTES = 256 << 20


class Accepting(Enum):
    """How the workers of nginx share new connections."""

    SHARED = "one socket that wakes one worker"
    MUTEX = "accept_mutex"
    REUSEPORT = "reuseport"


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxTuning:
    """The settings in which runs differ."""

    workers: int = 2
    caches_open_files: bool = False
    accepting: Accepting = Accepting.SHARED


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxPorts:
    """Its ports: `origin` serves files that are fresh for a day, `cache` caches them; and the master process."""

    origin: int
    cache: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VarnishPort:
    """Its port, and its first process."""

    port: int
    pid: int


DEFAULT_TUNING = NginxTuning()


@contextmanager
def running_nginx(
    program: str,
    root: str,
    work: str,
    *,
    origin_log: str = "off",
    tuning: NginxTuning = DEFAULT_TUNING,
    name: str = "nginx",
) -> Iterator[NginxPorts]:
    """Run nginx for the files below `root`; its own files go below `work`/`name`. Raises DaemonFailed.

    `origin_log` is a file to which the origin writes a line for each request it answers.
    """
    home = server_home(work, name, root)
    origin_port, cache_port = free_ports(2)
    configuration = _NGINX.format(
        work=home,
        root=root,
        origin_port=origin_port,
        cache_port=cache_port,
        origin_log=origin_log,
        workers=tuning.workers,
        open_files=_OPEN_FILES if tuning.caches_open_files else "",
        **sharing(tuning.accepting),
    )
    with configured_nginx(program, home, configuration, origin_port, cache_port) as daemon:
        yield NginxPorts(origin=origin_port, cache=cache_port, pid=daemon.pid)


def sharing(accepting: Accepting) -> dict[str, str]:
    """PURE: what a configuration says of how nginx's workers share connections."""
    return {
        "accept_mutex": "on" if accepting is Accepting.MUTEX else "off",
        "reuseport": " reuseport" if accepting is Accepting.REUSEPORT else "",
    }


@contextmanager
def configured_nginx(program: str, home: str, configuration: str, *ports: int) -> Iterator[Daemon]:
    """Run nginx with this configuration in its folder, once it accepts at these ports. Raises DaemonFailed."""
    path = os.path.join(home, "nginx.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(configuration)
    with running_daemon("nginx", [program, "-p", home, "-c", path], os.path.join(home, "log")) as daemon:
        for port in ports:
            daemon.wait_until_accepting(port)
        yield daemon


@contextmanager
def running_varnish(
    program: str, origin_port: int, work: str, *, store_bytes: int = _VARNISH_STORE_BYTES
) -> Iterator[VarnishPort]:
    """Run varnish in front of an origin on the loopback address, with its store in memory. Raises DaemonFailed."""
    home = server_home(work, "varnish")
    (port,) = free_ports(1)
    places = ["-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{origin_port}", "-T", "127.0.0.1:0"]
    command = [program, "-F", "-n", os.path.join(home, "state"), "-s", f"malloc,{store_bytes}", *places]
    with running_daemon("varnish", command, os.path.join(home, "log")) as daemon:
        daemon.wait_until_accepting(port)
        yield VarnishPort(port=port, pid=daemon.pid)


def find_server(name: str) -> str | None:
    """The path of a server program, even if only root's PATH leads to it; None if it is not installed."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def server_home(work: str, name: str, *others: str) -> str:
    """A new directory below `work`. Servers started by root become another user, which must be able to enter it."""
    home = os.path.join(work, name)
    os.makedirs(home, exist_ok=True)
    if os.geteuid() == 0:
        for place in (work, home, *others):
            os.chmod(place, 0o755)
    return home


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, because neither program can report one chosen by the kernel."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
