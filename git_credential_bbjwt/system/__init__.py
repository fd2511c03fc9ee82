"""Files, folders, processes and locks."""
