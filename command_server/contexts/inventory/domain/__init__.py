"""The rules of inventory, on the standard library and the kernel's vocabulary alone."""
