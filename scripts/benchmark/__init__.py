"""`scripts/bench`: the speed table; each figure is a ratio to the floor, measured in the same run."""
