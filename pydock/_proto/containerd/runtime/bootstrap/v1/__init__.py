"""Generated from ``protos/containerd/runtime/bootstrap/v1``: see the sources there."""
