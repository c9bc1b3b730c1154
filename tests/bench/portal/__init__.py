"""How fast the portal is: measured in a browser, and with many readers at once."""
