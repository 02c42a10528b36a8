"""The cache daemon: stores bytes and opaque metadata. It has no knowledge of HTTP."""


def version() -> str:
    """The installed version, looked up on demand, because the import that finds it is slow."""
    from importlib import metadata

    return metadata.version("gfcache")
