"""A CGN of natural images (Fig. 2): its losses and its training."""
