"""Generated from ``protos/containerd/services/sandbox/v1``: see the sources there."""
