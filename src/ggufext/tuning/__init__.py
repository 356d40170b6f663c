"""A search for better scaling than the closed forms, measured on the model itself."""
