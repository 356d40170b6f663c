"""Rotation of query and key tensors."""
