"""Generated from ``protos/containerd/runtime``: see the sources there."""
