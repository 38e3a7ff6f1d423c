"""One step of a rule on arrays."""
