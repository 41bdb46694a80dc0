"""Generated from ``protos/containerd/runtime/bootstrap``: see the sources there."""
