"""The proxy daemon: answers clients from a cache through shared memory, and from an origin what that lacks."""

from importlib.metadata import version

__version__ = version("gfcache")
