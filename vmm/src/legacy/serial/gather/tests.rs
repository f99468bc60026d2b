// The tests come with the next change.
