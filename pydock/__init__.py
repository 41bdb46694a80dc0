"""pydock: one asyncio daemon that stands in for containerd and Docker."""
