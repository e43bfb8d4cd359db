"""How the embedded model is made: exact worlds in, weights and curves out; every stage resumes where it stopped."""
