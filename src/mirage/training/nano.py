"""`mirage train nano`: the embedded model from nothing, stage by stage, each resumed where it stopped."""
