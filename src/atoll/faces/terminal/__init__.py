"""What the rooms' commands share: options, output as tables, JSON, YAML or names, times, progress, errors."""
