"""Generated from ``protos/containerd/services/namespaces/v1``: see the sources there."""
