"""Generated from ``protos/containerd/services/images``: see the sources there."""
