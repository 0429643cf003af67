"""The domain of inventory; it imports only the standard library and the kernel's domain modules."""
