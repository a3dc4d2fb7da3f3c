"""Built-in plugins, registered by entry points exactly like a stranger's. This version has none."""
