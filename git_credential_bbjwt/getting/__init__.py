"""From a credential request to its answer."""
