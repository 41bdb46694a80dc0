"""Generated from ``protos/containerd/task``: see the sources there."""
