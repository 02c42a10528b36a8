"""Unit tests of the cache daemon's modules."""
