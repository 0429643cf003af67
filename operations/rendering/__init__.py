"""Text and JSON of what the operations server answers. Nothing here calls a server or prints."""
