"""Generated from ``protos/containerd/services/snapshots/v1``: see the sources there."""
