"""From what people call a model to the file: paths, Ollama names, caches, folders, addresses."""
