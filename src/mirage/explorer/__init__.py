"""The explorer: walk through a world in the browser, or drive one from a program (`server`, `client`)."""
