"""Processes, the shell, the terminal, the time budget, and private folders with locks."""
