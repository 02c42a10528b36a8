"""The proxy daemon: answers clients from a cache through shared memory, and from an origin what that lacks."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: an import that Ctrl-C may meet unguarded must be short."""
    if name == "__version__":
        from importlib.metadata import version

        return version("gfcache")
    raise AttributeError(name)
