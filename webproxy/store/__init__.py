"""The cache as the proxy sees it: lookups, updates, purges and fills."""
