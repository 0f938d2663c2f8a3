"""Who may use how much: the project tree with its quotas, flavors, reservations, and how the queue stands."""
