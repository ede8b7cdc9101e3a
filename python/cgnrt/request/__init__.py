"""From what a caller asks for to a checked request: options, labels, noise, interpolation."""
