"""L4 the containerd gRPC front."""
