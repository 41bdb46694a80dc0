"""Figures of daemon, calls, stores and containers for Prometheus; nothing here is imported beyond ``server`` while it is off."""
