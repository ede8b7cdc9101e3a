"""Classifiers with a head for each mechanism (Sec. 4.3, App. C.4): shape, texture and background."""
