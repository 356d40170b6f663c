"""Looking at what llama.cpp really does with a file."""
