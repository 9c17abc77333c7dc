"""Wrong inputs by the thousand: `make fuzz`. Each gives the right result or one line, never a traceback."""
