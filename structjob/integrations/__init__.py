"""Integrations, one module for each library or program. ``import structjob`` imports none of
them.
"""
