"""Generated from ``protos/containerd/services/sandbox``: see the sources there."""
