"""From answers to numbers with intervals."""
