"""One request from head to last byte: answered from the cache, from a fetch, or by the origin directly."""
