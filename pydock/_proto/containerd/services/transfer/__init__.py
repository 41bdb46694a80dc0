"""Generated from ``protos/containerd/services/transfer``: see the sources there."""
