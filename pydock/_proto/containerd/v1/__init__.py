"""Generated from ``protos/containerd/v1``: see the sources there."""
