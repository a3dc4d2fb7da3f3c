"""unit-gateway: keeps gateways in step with the registry, and is a small one itself."""
