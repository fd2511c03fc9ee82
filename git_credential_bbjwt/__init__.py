"""Git credential helper for Bitbucket Cloud Connect apps."""

__version__ = "1.1.0"
