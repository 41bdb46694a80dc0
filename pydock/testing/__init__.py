"""Shipped test support: daemon harness, contract suites, leak check."""
