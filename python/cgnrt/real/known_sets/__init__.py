"""Test sets of others that a user has on disk: ImageNet-9 and Cue Conflict. See `cgnrt.real.in9` and `cue_conflict`."""
