"""The demo: a workload, its progress on the screen, and the command."""
