"""What the operating system is asked for: files, descriptors, times, and the names of host and
process.
"""
