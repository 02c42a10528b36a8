"""The pair under slow, stuck and vanishing parties, kills and load: `scripts/slow_parties`, `chaos` and `soak`."""
