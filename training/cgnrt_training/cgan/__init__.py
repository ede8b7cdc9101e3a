"""A class-conditional GAN of the user's own photos: what a CGN of natural images starts from."""
