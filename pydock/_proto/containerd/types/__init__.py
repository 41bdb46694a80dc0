"""Generated from ``protos/containerd/types``: see the sources there."""
