"""Generated from ``protos/containerd/runtime/sandbox``: see the sources there."""
