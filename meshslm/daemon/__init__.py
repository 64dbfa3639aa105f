"""The trio shell around a core: events in, effects out."""
