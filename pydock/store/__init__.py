"""L2 durable truth: where everything lies on disk, and the records about it."""
