"""How attention of a model falls with distance, measured and described."""
