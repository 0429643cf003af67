"""The domain of ordering; it imports only the standard library and the kernel's domain modules."""
