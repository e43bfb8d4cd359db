"""Weights of others into our classes, strictly; models in folders and on the hub."""

from mirage.checkpoint.files import read_weights as read_weights
from mirage.checkpoint.names import our_name as our_name
from mirage.checkpoint.transformer import load_lora as load_lora
from mirage.checkpoint.transformer import load_official as load_official
