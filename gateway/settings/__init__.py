"""What the configuration says of each kind of gateway."""
