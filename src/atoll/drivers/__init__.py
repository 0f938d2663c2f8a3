"""How engines are driven: `base` is the protocol, each engine has a folder, `contract` defines what is right."""
