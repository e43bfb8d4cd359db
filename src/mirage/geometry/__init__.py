"""How far things are: depth estimators, lifting into space, alignment of scale."""
