"""The renderer's part on an NVIDIA GPU."""
