"""Which process owns which names, whether it lives, and what the dead left behind."""
