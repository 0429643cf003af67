"""The rules of ordering, on the standard library and the kernel's vocabulary alone."""
