"""The registries that this package can speak to, each found through the entry-point group `unitd.registry_backends`."""
