"""From checked requests to batches of images: one renderer, its pools, and the devices that it runs on."""
