"""Stores of shared secrets: the keyring, or files."""
