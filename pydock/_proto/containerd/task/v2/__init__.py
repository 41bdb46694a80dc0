"""Generated from ``protos/containerd/task/v2``: see the sources there."""
