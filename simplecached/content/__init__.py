"""Files that belong to somebody else, served read-only."""
