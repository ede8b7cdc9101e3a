"""The MNIST CGN of Sec. 4.1 and App. B: models, data, losses and the training loop."""
