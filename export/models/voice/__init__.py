"""Spoken commands."""
