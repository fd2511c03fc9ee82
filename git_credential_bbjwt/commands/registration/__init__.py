"""Parts of `register`, by subject."""
