"""Form in, service, template out."""
