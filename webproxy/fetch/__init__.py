"""Fetches from origins: one for concurrent misses, spooled for its readers and handed to the cache."""
