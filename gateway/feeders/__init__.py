"""Feeders: each speaks to one kind of gateway."""
