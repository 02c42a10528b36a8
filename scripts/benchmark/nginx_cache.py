"""nginx as nothing but a cache of an origin elsewhere, with its best settings for very many objects. Loopback only."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scripts.benchmark.peer_servers import Accepting, configured_nginx, free_ports, server_home, sharing

_NGINX = """
daemon off;
master_process on;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
pid {work}/nginx.pid;
error_log {work}/nginx-error.log;
events {{ worker_connections 1024; accept_mutex {accept_mutex}; }}
http {{
    access_log off;
    sendfile on;
    open_file_cache max={open_files} inactive=1d;
    open_file_cache_valid 1d;
    keepalive_requests 1000000000;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    proxy_cache_path {work}/cache levels=1:2 keys_zone=bench:64m inactive=1d use_temp_path=off;
    upstream origin {{
        server 127.0.0.1:{origin_port};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024{reuseport};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache bench;
            proxy_cache_lock off;
        }}
    }}
}}
"""
_OPEN_FILES_MAX = 200_000
_OTHER_DESCRIPTORS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxCache:
    """Its port, and the master process."""

    port: int
    pid: int


def open_files_of(limit: int) -> int:
    """PURE: how many files it may keep open with this limit of descriptors, beside its connections."""
    unlimited = limit == resource.RLIM_INFINITY
    return _OPEN_FILES_MAX if unlimited else max(1, min(_OPEN_FILES_MAX, limit - _OTHER_DESCRIPTORS))


@contextmanager
def running_nginx_cache(
    program: str, origin_port: int, work: str, *, workers: int, accepting: Accepting
) -> Iterator[NginxCache]:
    """Run it; its files go below a new folder of `work`. It keeps as many files open as it may. Raises DaemonFailed."""
    home = server_home(work, f"nginx-{accepting.name}")
    (port,) = free_ports(1)
    open_files = open_files_of(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    configuration = _NGINX.format(
        work=home,
        port=port,
        origin_port=origin_port,
        workers=workers,
        open_files=open_files,
        descriptors=open_files + _OTHER_DESCRIPTORS,
        **sharing(accepting),
    )
    with configured_nginx(program, home, configuration, port) as daemon:
        yield NginxCache(port=port, pid=daemon.pid)
