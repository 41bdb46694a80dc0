"""Generated from ``protos/containerd/services/events/ttrpc``: see the sources there."""
