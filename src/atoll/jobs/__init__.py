"""Jobs: submitting, listing, changing, explaining, reading their output."""
