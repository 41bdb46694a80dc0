"""L0 pure data: OCI image and runtime specification types."""
