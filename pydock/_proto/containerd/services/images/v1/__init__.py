"""Generated from ``protos/containerd/services/images/v1``: see the sources there."""
