"""Plugins that provide mounts."""
