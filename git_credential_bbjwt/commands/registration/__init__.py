"""What `register` does, by subject."""
