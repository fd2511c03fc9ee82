"""Installations and their sources."""
