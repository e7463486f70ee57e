"""Readers of the texts in which families of models write tool calls."""
