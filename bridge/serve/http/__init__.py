"""The HTTP listener: parsing, limits, tokens, blocked readers and streams. It knows no foreign protocol."""
