"""The base of the package: output, repositories, options, errors, the time budget."""
