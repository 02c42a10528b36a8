"""What operators look at: health, metrics and statistics, read from shared memory by a process of its own."""
