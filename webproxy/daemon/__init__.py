"""The proxy process: its settings, how its objects are built, and its life from start to drain."""
