"""The spool: from a line of bytes to files that survive the process (queues, directories,
recorder).
"""
