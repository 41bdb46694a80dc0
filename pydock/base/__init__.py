"""L0 values: what every layer may use and what uses nothing of ours."""
