"""How good pictures are: judged by a classifier that no training used, and compared with each other."""
