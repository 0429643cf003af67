"""The domain of the catalogue. It imports only the standard library and the kernel."""
