"""Where installations come from: sources, payloads, the registry, shared secrets."""
