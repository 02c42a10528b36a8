"""Segments in shared memory, the pool they are leased from, and transfers of bytes over them."""
