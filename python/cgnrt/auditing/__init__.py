"""Audits: what a classifier's answers follow. The public name is `cgnrt.audit`."""
