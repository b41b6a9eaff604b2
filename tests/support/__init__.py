"""Functions and processes that several tests share. Contains no tests."""
