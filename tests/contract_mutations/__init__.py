"""The suite that tests the contract suite: a stand-in that is broken on purpose, in one small way at a time."""
