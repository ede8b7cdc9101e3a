"""Folders of photos: what is in them, their masks, and both packed for training."""
