"""The domain of banking; it imports only the standard library and the kernel's domain modules."""
