"""What is counted and measured about requests."""
