"""PURE: the rules of a shared HTTP cache (RFC 9111). Values in, decisions out; the clock is passed in."""
