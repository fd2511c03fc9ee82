"""Brokers: asking one for a token where the secret must not be, and being one where it is."""
