"""Generated from ``protos/containerd/services/leases/v1``: see the sources there."""
