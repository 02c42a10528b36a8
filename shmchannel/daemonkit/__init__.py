"""The frame of a daemon: settings, log, signals, readiness, limits, exit codes, and `daemon.run_daemon` around them.

This package imports nothing else from `shmchannel`, and nothing else in `shmchannel` imports it, so it could become
a package of its own. Import the module you need (`daemonkit.options`, `daemonkit.signals`, ...): this file stays
empty so that a process loads only what it uses.
"""
