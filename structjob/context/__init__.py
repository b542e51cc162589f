"""The context of running code: its job, step and correlation id, and the description of its
errors.
"""
