"""Generated from ``protos/grpc/health``: see the sources there."""
