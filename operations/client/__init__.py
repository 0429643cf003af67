"""The client of the operations server, which imports neither pydantic nor the library of a store."""
