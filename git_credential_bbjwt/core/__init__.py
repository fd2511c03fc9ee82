"""What all of the package stands on: output, repositories, options, errors, the time budget."""
