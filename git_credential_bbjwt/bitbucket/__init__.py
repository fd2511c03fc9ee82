"""Bitbucket Cloud: its JWTs and requests."""
