"""The operations server's responses as text and JSON. Nothing here calls a server or prints."""
