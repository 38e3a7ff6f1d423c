"""The loops around a step, and the public functions around the loops."""
