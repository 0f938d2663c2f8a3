"""The portal: puts the rooms' pages together, and shows the first one."""
