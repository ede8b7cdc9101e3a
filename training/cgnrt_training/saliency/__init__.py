"""A small network that finds the objects of small photos: head of the shape mechanism and judge of backgrounds."""
