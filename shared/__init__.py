"""What both sides of the wire share: contracts, cryptography, vision and the object store port."""
