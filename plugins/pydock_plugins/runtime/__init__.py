"""Plugins that provide runtime."""
