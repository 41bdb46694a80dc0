"""Plugins that provide remotes."""
