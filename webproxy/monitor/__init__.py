"""gfmon: shows in a terminal what the daemons write to shared memory, also while they hang."""
