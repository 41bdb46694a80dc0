"""Generated from ``protos/containerd/services/version/v1``: see the sources there."""
