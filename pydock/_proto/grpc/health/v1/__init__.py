"""Generated from ``protos/grpc/health/v1``: see the sources there."""
