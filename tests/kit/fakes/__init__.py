"""Scriptable stand-ins for backends, on loopback."""
