"""Generated from ``protos/containerd/services/events/ttrpc/v1``: see the sources there."""
