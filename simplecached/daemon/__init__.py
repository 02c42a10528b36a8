"""The daemon itself: its settings, its life from start to drain, and what it takes over while it runs."""
