"""Searches reported: in a terminal; their JSON is a recipe."""
