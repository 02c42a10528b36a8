"""Sockets: the listener, client connections, what is sent and received on them."""
