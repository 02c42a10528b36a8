"""The cache as the proxy sees it: look-ups, updates, purges and fills."""
