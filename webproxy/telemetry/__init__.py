"""Counting and measuring of requests."""
