"""Faces: found, aligned, restored, put back into the picture. `restoration.py` has the order of the steps."""
