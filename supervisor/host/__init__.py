"""asyncio shells around the core: the only package of the daemon that touches the machine."""
