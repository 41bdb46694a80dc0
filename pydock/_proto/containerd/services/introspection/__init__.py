"""Generated from ``protos/containerd/services/introspection``: see the sources there."""
