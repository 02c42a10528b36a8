"""What answers commands: the handler over a store, the hot table, and the leases of those who fetch."""
