"""The shim: the small process that holds one container or pod, on the standard library alone."""
