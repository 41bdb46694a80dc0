"""Generated from ``protos/containerd/services/namespaces``: see the sources there."""
