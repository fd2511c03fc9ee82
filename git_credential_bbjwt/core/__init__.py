"""The base of the package: output, errors, options, repositories, git's protocol, trusted files."""
