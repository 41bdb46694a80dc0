"""Generated from ``protos/containerd/services/streaming``: see the sources there."""
