"""The control center: sees a fleet through the registry, commands its nodes over HTTP, guards how much goes at once."""
