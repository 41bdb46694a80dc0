"""L5 the composition root: configuration, plugin graph, supervisor, listeners."""
