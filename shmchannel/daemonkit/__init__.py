"""What both daemons need of the operating system: settings, signals, readiness, logs, limits, exit codes.

This package imports nothing else of `shmchannel`, and nothing else in `shmchannel` imports it, so it can move
out on its own. Import the module you need (`daemonkit.options`, `daemonkit.signals`, ...): this file stays empty
so that a process pays only for what it uses.
"""
