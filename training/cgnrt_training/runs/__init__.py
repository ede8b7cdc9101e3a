"""What every training loop shares: its state, its folder, and steps of the loop."""
