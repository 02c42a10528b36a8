"""Object stores: what the cache keeps, in memory or in a directory, and what leaves when room is needed."""
