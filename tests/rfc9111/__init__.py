"""The rules of RFC 9111 and its companions, a file per section, as cases on plain values."""
