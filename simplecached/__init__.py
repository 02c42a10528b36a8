"""The cache daemon: stores bytes and opaque metadata, and knows no HTTP."""


def version() -> str:
    """The version that is installed, looked up when somebody asks: what finds it takes long to import."""
    from importlib import metadata

    return metadata.version("gfcache")
