"""Your own networks, losses, callbacks, loggers and datasets: one file each, imported before a run is read.

A file registers its part by name, for example `@register_network("my_net", options=MyOptions)`; docs/extending.md has
an example of each kind. Not here: parts of the package itself.
"""
