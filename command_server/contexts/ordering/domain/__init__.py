"""The domain of ordering. It imports only the standard library and the kernel."""
