from collections.abc import Callable, Sized
from typing import TypeAlias

from webproxy.serving.hit_loop import LearnedReply
from webproxy.serving.http1_server import Http1Server
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.job import IdleJob

Told: TypeAlias = tuple[bytes, bytes, int, int, int]

class HitLoop:
    def __init__(
        self,
        *,
        connection_type: type[HttpConnection],
        stream_type: type[ClientStream],
        parser_type: type[object],
        jobs: dict[int, IdleJob],
        epoll_fd: int,
        keepalive_s: float,
        staying_max: int,
        tail_parts: tuple[bytes, bytes, bytes],
        buckets: tuple[int, int],
        clients: tuple[Callable[[bytes, int, int], None], Sized, int, int],
        access_log: tuple[tuple[bytes | str, ...], Callable[[], None], Callable[[bytes], None], bytes] | None,
    ) -> None: ...
    def serve(self, connection: HttpConnection, data: bytes, /) -> tuple[HttpConnection, bytes | int | Told | None]: ...
    def accept(self, listener_fd: int, /) -> tuple[int, bytes | Told | None] | None: ...
    def learn_block(self, rest: bytes, closes: bool, line: bytes, log_parts: tuple[bytes, bytes], /) -> None: ...
    def learn_reply(self, target: bytes, reply: LearnedReply, /) -> None: ...
    def forget(self) -> None: ...
    def take_lines(self) -> bytes: ...
    def attach(self, server: Http1Server, /) -> None: ...
