"""PyTorch: every graph of a plan on every `torch.device`, without an engine library beside it."""
