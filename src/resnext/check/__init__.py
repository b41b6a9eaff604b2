"""What can be known about a training before it starts: its images, its memory, its speed, its hours.

Only cli/check.py imports this package. training/preflight.py has the checks that every training makes.
"""
