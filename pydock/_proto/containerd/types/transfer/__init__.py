"""Generated from ``protos/containerd/types/transfer``: see the sources there."""
