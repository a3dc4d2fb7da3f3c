"""The command line of a host's daemon: `unitctl`."""
