"""Generated from ``protos/runtimeoptions/v1``: see the sources there."""
