"""The definitions of the sample workloads: kinds.toml is the table of sizes, each KIND.txt the order of requests."""
