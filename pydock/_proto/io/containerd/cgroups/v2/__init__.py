"""Generated from ``protos/io/containerd/cgroups/v2``: see the sources there."""
