"""Access tokens: their records, and where those are kept."""
