"""Changing files: Plan to Patch, Patch to file, and back."""
