"""Generated from ``protos/containerd/services/streaming/v1``: see the sources there."""
