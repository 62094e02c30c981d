"""Things that several rooms' tests make: models small enough to load in milliseconds."""
