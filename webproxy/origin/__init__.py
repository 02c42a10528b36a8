"""The way to an origin: routing, the request, the transfer by libcurl, the head of the response."""
