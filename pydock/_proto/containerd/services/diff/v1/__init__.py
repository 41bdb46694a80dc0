"""Generated from ``protos/containerd/services/diff/v1``: see the sources there."""
