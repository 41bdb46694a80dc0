"""Plugins that provide content."""
