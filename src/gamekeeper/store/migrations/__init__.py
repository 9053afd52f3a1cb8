"""Schema versions, applied in order by `gamekeeper.store.migration`."""
