"""Processes, the shell, the terminal and the time budget."""
