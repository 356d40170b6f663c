"""Reading: bytes to Header, Header to ModelFacts."""
