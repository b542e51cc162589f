"""The demo: a workload to look at, its progress on the screen, and the command."""
