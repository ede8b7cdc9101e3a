"""Tables 3 and 4 on photos: does a classifier look at shape or texture, and does it lean on the background?"""
