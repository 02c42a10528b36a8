"""Programs that developers run from a clone; nothing here is installed, and no package imports it."""
