"""Sagas as operators search and steer them."""
