"""Generated from ``protos/containerd/runc/v1``: see the sources there."""
