"""Generated from ``protos/containerd/services/introspection/v1``: see the sources there."""
