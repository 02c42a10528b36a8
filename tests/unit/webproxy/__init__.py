"""Unit tests of the proxy daemon's modules."""
