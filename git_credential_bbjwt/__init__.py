"""git-credential-bbjwt: a git credential helper for Bitbucket Cloud."""

__version__ = "1.0.0"
