"""From the log call to the bytes of a line."""
