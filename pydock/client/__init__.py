"""A typed, blocking client of the containerd API: one module a service, each function one call (or one small sequence of calls)."""
