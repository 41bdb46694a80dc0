"""Generated from ``protos/containerd/services/tasks/v1``: see the sources there."""
