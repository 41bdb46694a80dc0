"""Generated from ``protos/containerd/services/events/v1``: see the sources there."""
