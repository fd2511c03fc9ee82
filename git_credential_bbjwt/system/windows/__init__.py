"""Windows' own ways."""
