"""Generated from ``protos/ttrpc``: see the sources there."""
