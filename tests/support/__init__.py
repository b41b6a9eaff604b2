"""Functions and processes that several tests share; no tests."""
