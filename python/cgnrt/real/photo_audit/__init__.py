"""What a classifier's answers about real photos lean on. See `cgnrt.real.audit`."""
