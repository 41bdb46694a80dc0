"""Generated from ``protos/containerd/services/tasks``: see the sources there."""
