"""The proxy daemon: answers clients from a cache through shared memory, and from an HTTP origin what the cache lacks."""

from importlib.metadata import version

__version__ = version("gfcache")
