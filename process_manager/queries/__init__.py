"""Queries about sagas, with consistency tokens and the age of each answer."""
