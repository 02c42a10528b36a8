"""PURE: the HTTP/1.1 that clients of the proxy speak: messages, parser, dates, ranges (RFC 9110, 9112)."""
