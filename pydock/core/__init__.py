"""L1 nouns: one module each, value types and the Protocol that mechanisms implement."""
