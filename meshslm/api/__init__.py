"""HTTP shapes: what goes over the wire between a client and a gateway, as typed values."""
