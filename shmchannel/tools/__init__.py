"""The commands that are installed with the library: `leaks` lists its names in the system, `clean` sweeps them."""
