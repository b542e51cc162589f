"""Reads of the tables."""
