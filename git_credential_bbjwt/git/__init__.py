"""Git: its credential protocol and its configuration."""
