"""A configuration of gunicorn by which its main process hears a signal."""

from unit_app import Flag

Flag().on_signal("RTMIN")
