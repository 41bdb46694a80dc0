"""Generated from ``protos/containerd/task/v3``: see the sources there."""
