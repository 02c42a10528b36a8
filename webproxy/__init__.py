"""The proxy daemon: answers clients from a cache through shared memory, and from an origin what that lacks."""


def version() -> str:
    """The version that is installed, looked up when somebody asks: what finds it takes long to import."""
    from importlib import metadata

    return metadata.version("gfcache")
