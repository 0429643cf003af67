"""The domain of inventory. It imports only the standard library and the kernel."""
