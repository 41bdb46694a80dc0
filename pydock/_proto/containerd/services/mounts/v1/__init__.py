"""Generated from ``protos/containerd/services/mounts/v1``: see the sources there."""
