"""Plugins that provide snapshots."""
