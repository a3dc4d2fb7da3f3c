"""The probe kinds that come with unitd, named by entry points exactly like a stranger's: see plugin_api.py."""
