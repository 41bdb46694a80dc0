"""Generated from ``protos/containerd``: see the sources there."""
