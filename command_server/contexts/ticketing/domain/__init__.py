"""The domain of ticketing. It imports only the standard library and the kernel."""
