"""Metrics: numbers that are counted where things happen, for Prometheus."""
