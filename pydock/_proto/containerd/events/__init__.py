"""Generated from ``protos/containerd/events``: see the sources there."""
