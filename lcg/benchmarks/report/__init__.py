"""A benchmark's directory becomes a page, and tables for a paper."""
