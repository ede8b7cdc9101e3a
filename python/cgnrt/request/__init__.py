"""What a caller asks for: labels, options and noise, checked once."""
