"""Asking the questions of an audit and keeping the answers."""
