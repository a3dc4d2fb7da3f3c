"""The node daemon `unitd` and its command line `unitctl`."""

__version__ = "0.1.0"
