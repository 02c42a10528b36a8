"""The steps of a store on disk at which a kill is tested."""

KILL_POINTS = (
    "created",
    "written",
    "renamed",
    "synced",
    "indexed",
    "unlinked",
    "unindexed",
    "flushed",
    "relabelled",
    "invalidated",
    "purged",
)


def checkpoint(_point: str) -> None:
    """Do nothing: fault tests replace it by a function that kills the process at one of KILL_POINTS."""
