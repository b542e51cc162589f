"""From a line to a file that survives the process: queues, directories, and who writes."""
