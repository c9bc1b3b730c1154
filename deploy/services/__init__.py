"""Starting and ending the servers that the platform stands on."""
