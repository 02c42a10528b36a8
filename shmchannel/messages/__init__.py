"""Small messages between processes, over POSIX message queues."""
