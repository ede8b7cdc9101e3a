"""Counterfactual batches from a plan."""
