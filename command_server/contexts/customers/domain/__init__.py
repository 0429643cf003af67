"""The domain of customers. It imports only the standard library and the kernel."""
