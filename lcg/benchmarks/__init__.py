"""Benchmarks: methods x requests -> results.csv and pictures (jobs), and the page that shows them (report).

A report only renders what a job wrote; whoever wants another page, or another plot, reads the same three files.
"""
