"""Generated from ``protos/containerd/services/containers/v1``: see the sources there."""
