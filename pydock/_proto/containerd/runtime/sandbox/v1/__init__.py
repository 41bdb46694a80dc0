"""Generated from ``protos/containerd/runtime/sandbox/v1``: see the sources there."""
