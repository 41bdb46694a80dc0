"""Generated from ``protos/containerd/services/snapshots``: see the sources there."""
