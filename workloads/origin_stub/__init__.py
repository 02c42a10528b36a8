"""A scripted HTTP/1.1 origin for tests and demonstrations: real sockets, one thread for each connection.

with OriginStub({"/file": Route(body=b"...", truncate_at=10)}) as origin:
    ... origin.url, origin.requests, origin.count("/file")
"""

from workloads.origin_stub.request import Request
from workloads.origin_stub.route import Framing, Route
from workloads.origin_stub.server import OriginStub

__all__ = ["Framing", "OriginStub", "Request", "Route"]
