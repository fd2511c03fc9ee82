"""HTTPS by git's route."""
