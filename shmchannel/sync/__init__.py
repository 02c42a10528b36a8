"""Synchronisation between processes."""
