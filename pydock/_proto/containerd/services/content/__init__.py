"""Generated from ``protos/containerd/services/content``: see the sources there."""
