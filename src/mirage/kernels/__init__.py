"""The arithmetic of the memory: tensor operations behind one door."""
