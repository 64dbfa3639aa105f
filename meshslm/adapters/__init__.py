"""One outside thing each: the libp2p network, an engine process, a key file."""
