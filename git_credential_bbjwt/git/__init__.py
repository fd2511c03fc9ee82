"""Git's protocol and its configuration."""
