"""The command line `atoll`: assembles the rooms' commands, and adds those about the platform itself."""
