"""The front door of one machine: `atoll up` keeps its parts running behind one address."""
