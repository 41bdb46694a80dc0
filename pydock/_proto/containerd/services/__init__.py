"""Generated from ``protos/containerd/services``: see the sources there."""
