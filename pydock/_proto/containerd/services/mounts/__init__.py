"""Generated from ``protos/containerd/services/mounts``: see the sources there."""
