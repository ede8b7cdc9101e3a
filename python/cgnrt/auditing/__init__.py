"""Audits of classifiers: do their answers follow the shape, the texture or the background? See `cgnrt.audit`."""
