"""The cache protocol: commands that name objects, both ends of them, and the hot table."""
