"""The pair under slow, stuck and vanishing parties, and under kills: `scripts/slow_parties` and `scripts/chaos`."""
