"""Diffs: putting layer archives onto mounts, in a helper process that holds no privilege it does not need."""
