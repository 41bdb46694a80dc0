"""Generated from ``protos/containerd/services/version``: see the sources there."""
