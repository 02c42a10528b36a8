"""Fetches from origins: one for equal misses, spooled for its readers and handed to the cache."""
