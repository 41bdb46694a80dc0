"""Generated from ``protos/containerd/services/transfer/v1``: see the sources there."""
