"""`scripts/bench`: the speed table, each figure as a ratio to the barest loop, measured in one run."""
