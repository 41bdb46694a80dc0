"""Generated from ``protos/io/containerd/cgroups``: see the sources there."""
