"""The formats that several processes read or write: streams, envelope, view layout, tokens, upcasters."""
