"""Where shared secrets are stored."""
