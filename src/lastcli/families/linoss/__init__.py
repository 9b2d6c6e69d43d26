"""LinOSS: forced oscillators."""
