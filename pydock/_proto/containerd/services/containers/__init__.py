"""Generated from ``protos/containerd/services/containers``: see the sources there."""
