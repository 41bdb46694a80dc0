"""Generated from ``protos/containerd/services/diff``: see the sources there."""
