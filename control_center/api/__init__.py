"""The control center's HTTP API: requests become questions to its parts, answers become JSON."""
