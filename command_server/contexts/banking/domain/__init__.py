"""The domain of banking. It imports only the standard library and the kernel."""
