"""Benchmarks of numbelief, one file per floor of the library; peers.py is a script besides."""
