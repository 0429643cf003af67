"""The rules of banking, on the standard library and the kernel's vocabulary alone."""
