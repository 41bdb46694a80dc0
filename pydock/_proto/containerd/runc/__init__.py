"""Generated from ``protos/containerd/runc``: see the sources there."""
