"""Generated from ``protos/io``: see the sources there."""
