"""The domain of fulfilment. It imports only the standard library and the kernel."""
