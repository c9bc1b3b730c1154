"""Services and supervisors."""
