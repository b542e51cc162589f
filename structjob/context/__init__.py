"""The context of running code: its job, step and correlation id, and data about errors."""
