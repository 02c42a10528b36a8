"""A scripted HTTP/1.1 origin for tests and demonstrations: real sockets, one thread for each connection.

with OriginStub({"/file": Route(body=b"...", truncate_at=10)}) as origin:
    ... origin.url, origin.requests, origin.count("/file")

What a path answers is a `Route`, or a list of them, one for each request after the other. It says the status and its
reason, header fields, body and framing, 1xx before and trailers behind it, and everything that can go wrong. The stub
itself answers conditions by ETag and Last-Modified (304), Range and If-Range (206, 416), HEAD and Expect. What was
asked is in `requests`, with bodies; a route may also echo it. For all else `choose` makes the route of the request:

    def by_language(request: Request) -> Route:  # what a Vary is for
        return Route(body=request.headers["accept-language"].encode(), headers={"Vary": "Accept-Language"})

    OriginStub({"/file": Route(choose=by_language), "/upload": Route(methods={"POST"}, status=201, echo=True)})
"""

from workloads.origin_stub.request import Request
from workloads.origin_stub.route import Framing, Headers, Route
from workloads.origin_stub.server import OriginStub, Script

__all__ = ["Framing", "Headers", "OriginStub", "Request", "Route", "Script"]
