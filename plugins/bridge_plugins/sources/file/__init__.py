"""Instances written down in YAML or JSON files."""
