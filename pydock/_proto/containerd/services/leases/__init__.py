"""Generated from ``protos/containerd/services/leases``: see the sources there."""
