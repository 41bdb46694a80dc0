"""Generated from ``protos/io/containerd``: see the sources there."""
