"""The kit of the HTTP faces: who asks, errors, paging, event streams."""
