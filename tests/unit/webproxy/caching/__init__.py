"""Unit tests of the rules of the HTTP cache."""
