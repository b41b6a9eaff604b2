"""One file for each verb: reads the arguments, calls one function, prints the result.

Not here: how a configuration is composed (config/compose.py), and the work itself.
"""
