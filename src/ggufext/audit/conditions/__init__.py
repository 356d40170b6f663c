"""Ways of running one model file."""
