"""Access to the operating system: files, descriptors, times, and the names of host and process."""
