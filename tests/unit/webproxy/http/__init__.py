"""Unit tests of the HTTP messages."""
