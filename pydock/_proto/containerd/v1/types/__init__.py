"""Generated from ``protos/containerd/v1/types``: see the sources there."""
