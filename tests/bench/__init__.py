"""Benchmarks: printed, written to artifacts/, never asserted."""
