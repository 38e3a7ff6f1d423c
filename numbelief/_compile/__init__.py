"""How plain Python becomes compiled code."""
