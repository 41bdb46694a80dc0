"""Generated from ``protos/runtimeoptions``: see the sources there."""
