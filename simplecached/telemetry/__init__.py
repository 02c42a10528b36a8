"""What is counted, and the page in which it is."""
