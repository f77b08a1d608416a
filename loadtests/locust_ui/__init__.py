"""Locust as the distributed front of the generator."""
