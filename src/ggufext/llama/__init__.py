"""What llama.cpp really does with a file."""
