"""Sessions: JupyterHub's servers as jobs of class interactive."""
