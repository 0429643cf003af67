"""Writes a small but complete bounded context to build on, into this repository or into one of its own.

A template becomes the file that `files.py` maps it to; the variables in it are those of `Place.render`.
"""
