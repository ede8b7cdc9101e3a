"""Classifiers of the MNIST variants: every row of Table 2, one network and one loop for all."""
