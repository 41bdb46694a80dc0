"""Generated from ``protos/grpc``: see the sources there."""
