"""L3 verbs: what the platform does, over the core Protocols only."""
