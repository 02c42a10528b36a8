"""Connections and workers: who accepts, what waits for a worker, and what waits without one."""
