"""Load and test inputs: the GETFILE client, workload files and their generator, manifests, a scripted HTTP origin."""
