"""The operating system: folders, locks, child processes."""
