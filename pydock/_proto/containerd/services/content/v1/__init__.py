"""Generated from ``protos/containerd/services/content/v1``: see the sources there."""
