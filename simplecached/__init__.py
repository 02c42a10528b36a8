"""The cache daemon: stores bytes and opaque metadata, and knows no HTTP."""

from importlib.metadata import version

__version__ = version("gfcache")
