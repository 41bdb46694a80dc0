"""Generated from ``protos/containerd/services/events``: see the sources there."""
