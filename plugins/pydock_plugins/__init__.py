"""Mechanisms: the built-in plugins behind the core Protocols."""
