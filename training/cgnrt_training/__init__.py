"""PyTorch training of Counterfactual Generative Networks."""
