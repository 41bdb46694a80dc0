"""Generated from ``protos/io/containerd/cgroups/v1``: see the sources there."""
