"""Connections and workers: accepting, jobs that wait for a worker, and jobs that wait without one."""
