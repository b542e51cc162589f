"""Retention: what is deleted when, and how."""
